import type { KvEntry } from '@nats-io/kv'
import { MAX_CONFIG_BYTES } from '../config/limits.ts'
import { NAME } from '../config/name.ts'
import { LISTS_FOLDER, POLICY_FILE } from '../config/policy-folder.ts'

const MAX_LISTS = 256
const MAX_PROBLEMS = 64 // whoever writes the bucket chooses how many there are
const LIST_PREFIX = `${LISTS_FOLDER}/`

/** A value of a bucket's key, and which change of the bucket it was. */
export interface BucketValue {
  readonly revision: number
  readonly bytes: Uint8Array
}

/** What a bucket holds, as far as a policy is concerned: keys as a folder has files. Other keys mean nothing. */
export class BucketView {
  /** Undefined: there is none, or it is too large. */
  policy: BucketValue | undefined
  /** Those with bytes have not been taken over yet. */
  readonly #lists = new Map<string, Uint8Array | undefined>()
  /** The last change that was seen. */
  revision = 0
  /** What cannot be taken, by its key: some of it where it is much. */
  readonly problems = new Map<string, string>()

  get lists(): ReadonlyMap<string, Uint8Array | undefined> {
    return this.#lists
  }

  /** Its content is somewhere else now: there may be many megabytes of it. */
  forgetBytes(name: string): void {
    this.#lists.set(name, undefined)
  }

  /** Takes one change in. Names of lists are checked: they become names of files. */
  take(entry: Pick<KvEntry, 'key' | 'revision' | 'operation' | 'value'>): void {
    const { key, revision, operation, value } = entry
    this.revision = Math.max(this.revision, revision)
    this.problems.delete(key)
    const bytes = operation === 'PUT' ? value : undefined
    if (key === POLICY_FILE) {
      const isTooLarge = bytes !== undefined && bytes.length > MAX_CONFIG_BYTES
      if (isTooLarge) this.problems.set(key, `${bytes.length} bytes are more than ${MAX_CONFIG_BYTES}`)
      this.policy = bytes === undefined || isTooLarge ? undefined : { revision, bytes }
    } else if (key.startsWith(LIST_PREFIX)) {
      this.#takeList(key, bytes)
    }
  }

  #takeList(key: string, value: Uint8Array | undefined): void {
    const name = key.slice(LIST_PREFIX.length)
    if (value === undefined) this.#lists.delete(name)
    else if (!NAME.safeParse(name).success) this.#noteProblem(key, 'it is not the name of a list')
    else if (!this.#lists.has(name) && this.#lists.size >= MAX_LISTS)
      this.#noteProblem(key, `more than ${MAX_LISTS} lists`)
    else this.#lists.set(name, value)
  }

  #noteProblem(key: string, problem: string): void {
    if (this.problems.size < MAX_PROBLEMS) this.problems.set(key, problem)
  }
}
