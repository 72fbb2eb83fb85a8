import { lookOf } from './file-look.ts'
import { type List, parseList } from './list.ts'
import { ListError } from './list-error.ts'
import { readListFile } from './list-file.ts'
import { WatchedFolders } from './watched-folders.ts'

/** A file that looks the same for that long is not being written any more: a change is live after about twice this. */
const SETTLE_MS = 100
/** Without any event: for what no event tells of (NFS, no inotify watches left, a link in the middle of a path). */
const POLL_MS = 10_000

export interface ListsOptions {
  /** A changed file is not taken, and why; the list stays as it was. Told once, not again while nothing else is wrong. */
  readonly onProblem: (name: string, error: ListError) => void
  /** A list has other content. */
  readonly onSwap?: (name: string, list: List) => void
}

interface Kept {
  readonly name: string
  readonly path: string
  list: List
  digest: string
  /** What the file looked like when its content was taken or found wrong. */
  looked: string
  /** What it looked like last. */
  seen: string
  problem: ListError | undefined
}

/**
 * Lists by name, kept as their files are. An event in a file's folder, or in the folder that a link leads to, is a reason to look; so is
 * some time without any. A file that looks different, and then the same twice, is read; when it parses, the list is swapped in one step.
 * Holds no process: its watchers and timer are unref'd. One file is read at a time.
 */
export class Lists {
  readonly #kept: ReadonlyMap<string, Kept>
  readonly #options: ListsOptions
  readonly #folders: WatchedFolders
  readonly #closing = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> | undefined
  /** An event came, and nobody has looked since. */
  #isDue = false

  private constructor(kept: ReadonlyMap<string, Kept>, options: ListsOptions) {
    this.#kept = kept
    this.#options = options
    this.#folders = new WatchedFolders(() => this.#soon())
  }

  /** Reads all of them, each from its path. @throws ListError: a list that cannot be had at the start is not done without. */
  static async open(paths: Readonly<Record<string, string>>, options: ListsOptions): Promise<Lists> {
    const kept = new Map<string, Kept>()
    for (const [name, path] of Object.entries(paths)) {
      const looked = await lookOf(path)
      const { bytes, digest } = await readListFile(path)
      const list = await parseList(bytes, path)
      kept.set(name, { name, path, list, digest, looked, seen: looked, problem: undefined })
    }
    const lists = new Lists(kept, options)
    await lists.#look() // what changed before the watchers were there
    return lists
  }

  /** The list as it is now; undefined when there is none of that name. Ask anew for each flow. */
  get(name: string): List | undefined {
    return this.#kept.get(name)?.list
  }

  /** Why a list is not what its file says, until it is again. */
  problemOf(name: string): ListError | undefined {
    return this.#kept.get(name)?.problem
  }

  /** Ends watching; resolves when no timer, watcher or open file is left. */
  async close(): Promise<void> {
    this.#closing.abort()
    clearTimeout(this.#timer)
    this.#folders.close()
    await this.#looking
    this.#folders.close() // what a look opened meanwhile
  }

  #soon(): void {
    if (this.#isDue || this.#closing.signal.aborted) return
    this.#isDue = true
    if (this.#looking === undefined) this.#lookIn(SETTLE_MS)
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#looking = this.#look().finally(() => {
        this.#looking = undefined
      })
    }, ms)
    this.#timer.unref()
  }

  async #look(): Promise<void> {
    this.#isDue = false
    let isSettled = true
    try {
      await this.#folders.watch([...this.#kept.values()].map(({ path }) => path))
      for (const kept of this.#kept.values()) {
        this.#closing.signal.throwIfAborted()
        if (!(await this.#lookAt(kept))) isSettled = false
      }
    } catch (error) {
      if (!this.#closing.signal.aborted) throw error
    }
    if (!this.#closing.signal.aborted) this.#lookIn(isSettled && !this.#isDue ? POLL_MS : SETTLE_MS)
  }

  /** @returns false when it has to be looked at again soon. */
  async #lookAt(kept: Kept): Promise<boolean> {
    const look = await lookOf(kept.path)
    if (look === kept.looked) return true
    if (look !== kept.seen) {
      kept.seen = look
      return false
    }
    kept.looked = '' // what cannot be read is tried again, also when it comes back as it was
    try {
      const { bytes, digest } = await readListFile(kept.path)
      if ((await lookOf(kept.path)) !== look) return false // written while it was read
      const isSame = digest === kept.digest
      kept.looked = look
      const list = isSame ? kept.list : await parseList(bytes, kept.path, this.#closing.signal)
      kept.list = list
      kept.digest = digest
      kept.problem = undefined
      if (!isSame) this.#options.onSwap?.(kept.name, list)
    } catch (error) {
      if (!(error instanceof ListError)) throw error
      const isTold = kept.problem?.message === error.message
      kept.problem = error
      if (!isTold) this.#options.onProblem(kept.name, error)
    }
    return true
  }
}
