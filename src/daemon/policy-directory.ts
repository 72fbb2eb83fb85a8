import { statSync } from 'node:fs'
import { join } from 'node:path'
import { LISTS_FOLDER, listsIn, POLICY_FILE, readPolicyFolderApart } from '../config/policy-folder.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config } from '../config/types.ts'
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
  #looked: string
  /** What it looked like last. */
  #seen: string
  #isClosed = false

  /** `gateway`: whose policy it is to be. */
  constructor(directory: string, gateway: Config) {
    this.#directory = directory
    this.#gateway = gateway
    this.#folders = new WatchedFolders(() => this.#lookIn(SETTLE_MS))
    this.#looked = this.#seen = this.#look()
  }

  async first(): Promise<PolicyConfig> {
    return await this.read()
  }

  async read(): Promise<PolicyConfig> {
    this.#looked = this.#seen = this.#look()
    return await readPolicyFolderApart(this.#directory, this.#gateway)
  }

  async taken(): Promise<void> {} // it lies there already

  follow(onChange: () => Promise<void>): void {
    this.#onChange = onChange
    this.#lookIn(0) // what changed before the watchers were there
  }

  get stats(): OriginStats {
    return { from: `directory ${this.#directory}`, revision: undefined, isConnected: undefined, problem: undefined }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#folders.close()
    await this.#changing
    this.#folders.close() // what a look opened meanwhile
  }

  #lookIn(ms: number): void {
    if (this.#isClosed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#changing = this.#changing.then(() => this.#lookAgain())
    }, ms)
    this.#timer.unref()
  }

  async #lookAgain(): Promise<void> {
    // the folder itself: a file in it; so is the one of the lists
    await this.#folders.watch([join(this.#directory, POLICY_FILE), join(this.#directory, LISTS_FOLDER, '_')])
    const look = this.#look()
    const isSettled = look === this.#seen
    this.#seen = look
    if (isSettled && look !== this.#looked) {
      this.#looked = look
      await this.#onChange?.()
    }
    this.#lookIn(isSettled ? POLL_MS : SETTLE_MS)
  }

  /** Tells one state of the policy, and of the names of lists, from another without reading it. */
  #look(): string {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = statSync(join(this.#directory, POLICY_FILE), { bigint: true })
      return [dev, ino, size, mtimeNs, ctimeNs, ...listsIn(this.#directory)].join(' ')
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? 'unreadable'
    }
  }
}
