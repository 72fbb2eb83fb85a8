import { join } from 'node:path'
import { LISTS_FOLDER, listsIn, POLICY_FILE, readPolicyFolderApart } from '../config/policy-folder.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config } from '../config/types.ts'
import { lookOf } from '../policy/file-look.ts'
import { WatchedFolders } from '../policy/watched-folders.ts'
import type { OriginStats, PolicyOrigin } from './policy-origin.ts'

/** What looks the same for that long is not being written any more. */
const SETTLE_MS = 100
/** Without any event: for what no event tells of, as of lists. */
const POLL_MS = 10_000

/** A policy in a folder, read again when it changes, as lists are (the content of which is the workers' affair). Holds no process. */
export class PolicyDirectory implements PolicyOrigin {
  readonly #directory: string
  readonly #gateway: Config
  readonly #folders: WatchedFolders
  #timer: NodeJS.Timeout | undefined
  #changing: Promise<void> = Promise.resolve()
  #onChange: (() => Promise<void>) | undefined
  /** What the folder looked like when it was read. */
  #looked = ''
  /** The lists of what was read and not taken, perhaps because of what they hold, with what they looked like: then that counts, too. */
  #untaken: ReadonlyMap<string, string> = new Map()
  /** What all of it looked like last. */
  #seen = ''
  /** An event came, and nobody has looked since. */
  #isDue = false
  #isLooking = false
  readonly #closing = new AbortController()

  /** `gateway`: whose policy it is to be. */
  constructor(directory: string, gateway: Config) {
    this.#directory = directory
    this.#gateway = gateway
    this.#folders = new WatchedFolders(() => this.#soon())
  }

  async first(): Promise<PolicyConfig> {
    return await this.read()
  }

  async read(): Promise<PolicyConfig> {
    this.#looked = this.#seen = await this.#look()
    this.#untaken = new Map()
    const policy = await readPolicyFolderApart(this.#directory, this.#gateway, this.#closing.signal)
    this.#untaken = await looksOf(Object.values(policy.lists))
    return policy
  }

  async taken(): Promise<void> {
    this.#untaken = new Map() // from now on what they hold is the workers' affair
  }

  follow(onChange: () => Promise<void>): void {
    this.#onChange = onChange
    this.#lookIn(0) // what changed before the watchers were there
  }

  get stats(): OriginStats {
    return { from: `directory ${this.#directory}`, revision: undefined, isConnected: undefined, problem: undefined }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    clearTimeout(this.#timer)
    this.#folders.close()
    await this.#changing
    this.#folders.close() // what a look opened meanwhile
  }

  #soon(): void {
    this.#isDue = true
    if (!this.#isLooking) this.#lookIn(SETTLE_MS)
  }

  #lookIn(ms: number): void {
    if (this.#closing.signal.aborted) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#changing = this.#lookAgain()
    }, ms)
    this.#timer.unref()
  }

  async #lookAgain(): Promise<void> {
    this.#isLooking = true
    this.#isDue = false
    const untaken = this.#untaken
    // the folder itself: a file in it; so is the one of the lists
    const files = [join(this.#directory, POLICY_FILE), join(this.#directory, LISTS_FOLDER, '_')]
    await this.#folders.watch([...files, ...untaken.keys()])
    const look = await this.#look()
    const lists = await looksOf(untaken.keys())
    const isMended = [...untaken].some(([path, looked]) => lists.get(path) !== looked)
    const all = [look, ...lists.values()].join(' ')
    const isSettled = all === this.#seen
    this.#seen = all
    if (isSettled && (look !== this.#looked || isMended)) {
      this.#looked = look
      await this.#onChange?.()
    }
    this.#isLooking = false
    this.#lookIn(isSettled && !this.#isDue ? POLL_MS : SETTLE_MS)
  }

  /** Tells one state of the policy, and of the names of lists, from another without reading it. */
  async #look(): Promise<string> {
    try {
      return [await lookOf(join(this.#directory, POLICY_FILE)), ...listsIn(this.#directory)].join(' ')
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? 'unreadable'
    }
  }
}

async function looksOf(paths: Iterable<string>): Promise<ReadonlyMap<string, string>> {
  const looks = new Map<string, string>()
  for (const path of paths) looks.set(path, await lookOf(path))
  return looks
}
