import { setTimeout as wait } from 'node:timers/promises'
import type { KV } from '@nats-io/kv'
import type { NatsConnection } from '@nats-io/transport-node'
import { parsePolicyApart } from '../config/apart.ts'
import { POLICY_FILE } from '../config/policy-folder.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { PolicyFrom } from '../config/sharing.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { parseList } from '../policy/list.ts'
import { BucketView } from './bucket-view.ts'
import { KeptPolicy } from './kept-policy.ts'
import { type LinkUser, loadPackage, type NatsLink } from './nats-link.ts'
import type { OriginOptions, OriginStats, PolicyOrigin } from './policy-origin.ts'

/** How long a start waits for NATS; then it goes on with what was kept. */
const FIRST_MS = 5_000
const RETRY_MS = 1_000 // of a bucket that is not there, or may not be read
const RECHECK_MS = 30_000 // whether the bucket is still the one that is watched: one small question
/** Of all keys with their history: what is sent at once when a watch begins. */
const MAX_BUCKET_BYTES = 128 * 1024 * 1024

/**
 * A policy in a bucket of JetStream KV. Each watch begins with all keys anew, also after a cut, so that nothing is missed. What is good is kept
 * in a folder, where lists are files as all lists are; workers do not know of NATS.
 */
export class PolicyBucket implements PolicyOrigin, LinkUser {
  readonly #from: PolicyFrom & { readonly kind: 'bucket' }
  readonly #gateway: Config
  readonly #link: NatsLink
  readonly #note: (line: string) => void
  readonly #kept: KeptPolicy
  readonly #closing = new AbortController()
  /** Counts up; a watch of a former one ends. */
  #turn = 0
  #stopWatch: () => void = () => {}
  #watching: Promise<void> = Promise.resolve()
  /** Undefined until all keys have been seen once. */
  #view: BucketView | undefined
  #heard = (): void => {}
  readonly #firstHeard = new Promise<void>((resolve) => {
    this.#heard = resolve
  })
  #onChange: (() => Promise<void>) | undefined
  /** What read() gave last; undefined: what was kept. */
  #read: { readonly text: string; readonly revision: number; readonly lists: ReadonlySet<string> } | undefined
  /** What was told of last. */
  #told = ''
  #revision: number | undefined
  #problem: string | undefined
  /** Of lists that stay as they were. */
  readonly #listProblems = new Map<string, string>()
  /** Of keys that mean nothing as they are. */
  #keyProblems: ReadonlySet<string> = new Set()

  private constructor(from: PolicyFrom & { readonly kind: 'bucket' }, gateway: Config, { link, note }: OriginOptions) {
    this.#from = from
    this.#gateway = gateway
    this.#link = link!
    this.#note = note
    this.#kept = new KeptPolicy(from.keep)
  }

  /** Resolves when the bucket has been seen, or not in time. @throws LimpidError LIMPID_POLICY_SOURCE, LIMPID_NATS */
  static async open(
    from: PolicyFrom & { readonly kind: 'bucket' },
    gateway: Config,
    options: OriginOptions,
  ): Promise<PolicyBucket> {
    const bucket = new PolicyBucket(from, gateway, options)
    await loadPackage(() => import('@nats-io/kv'))
    bucket.#link.add(bucket)
    await Promise.race([
      bucket.#firstHeard,
      wait(FIRST_MS, undefined, { signal: bucket.#closing.signal }).catch(() => {}),
    ])
    return bucket
  }

  async first(): Promise<PolicyConfig> {
    try {
      return await this.read()
    } catch (error) {
      const { since } = this.#kept
      if (since === undefined || this.#view === undefined) throw error
      this.#read = undefined
      const kept = await this.#kept.read(this.#gateway, this.#closing.signal)
      this.#note(`begins with the policy that was kept at ${since.toISOString()}: ${(error as Error).message}`)
      return kept
    }
  }

  async read(): Promise<PolicyConfig> {
    const view = this.#view
    if (view === undefined) return await this.#readKept()
    this.#told = this.#signature(view)
    const name = `${this.#from.bucket}/${POLICY_FILE}`
    if (view.policy === undefined) {
      const why = view.problems.get(POLICY_FILE) ?? 'there is no such key'
      throw new LimpidError('LIMPID_POLICY_SOURCE', `bucket ${name}: ${why}`, {
        cure: `nats kv put ${this.#from.bucket} ${POLICY_FILE} …`,
      })
    }
    const text = Buffer.from(view.policy.bytes).toString()
    const files = Object.entries(this.#kept.lists).filter(([list]) => view.lists.has(list))
    const { revision } = view.policy
    const surroundings = { gateway: this.#gateway, lists: Object.fromEntries(files) }
    const policy = await parsePolicyApart(text, name, surroundings, this.#closing.signal)
    this.#read = { text, revision, lists: new Set(Object.keys(policy.lists)) }
    return policy
  }

  async taken(): Promise<void> {
    if (this.#read === undefined) {
      this.#revision = this.#kept.revision
      return
    }
    const { text, revision, lists } = this.#read
    this.#revision = revision
    try {
      this.#kept.keepPolicy(text, revision, new Set([...lists, ...(this.#view?.lists.keys() ?? [])]))
    } catch (error) {
      this.#tellProblem((error as Error).message) // it decides all the same
    }
  }

  follow(onChange: () => Promise<void>): void {
    this.#onChange = onChange
    const view = this.#view
    if (view !== undefined) void this.#tell(view)
  }

  get stats(): OriginStats {
    return {
      from: `bucket ${this.#from.bucket}`,
      revision: this.#revision,
      isConnected: this.#link.isUp,
      problem: this.#problem ?? [...this.#listProblems.values(), ...this.#keyProblems][0] ?? this.#link.problem,
    }
  }

  onUp(connection: NatsConnection): void {
    const turn = ++this.#turn
    this.#stopWatch()
    this.#watching = this.#watching.then(() => this.#watch(connection, turn))
  }

  onDown(): void {
    this.#turn++
    this.#stopWatch()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    this.onDown()
    await this.#watching
  }

  async #readKept(): Promise<PolicyConfig> {
    const { since } = this.#kept
    this.#read = undefined
    if (since === undefined) {
      const why = this.#problem ?? this.#link.problem ?? `no answer in ${FIRST_MS} ms`
      throw new LimpidError(
        'LIMPID_POLICY_SOURCE',
        `bucket ${this.#from.bucket}: ${why}; and no policy is kept in ${this.#from.keep}`,
        { cure: 'see to it that NATS can be reached: without a policy Limpid does not begin' },
      )
    }
    const policy = await this.#kept.read(this.#gateway, this.#closing.signal)
    if (this.#onChange === undefined)
      this.#note(`NATS is not reached: begins with the policy that was kept at ${since.toISOString()}`)
    return policy
  }

  async #watch(connection: NatsConnection, turn: number): Promise<void> {
    while (turn === this.#turn) {
      try {
        await this.#watchOnce(connection, turn)
      } catch (error) {
        if (turn !== this.#turn) return
        this.#tellProblem(`bucket ${this.#from.bucket}: ${(error as Error).message}`)
        this.#heard()
      }
      if (turn === this.#turn) await wait(RETRY_MS, undefined, { signal: this.#closing.signal }).catch(() => {})
    }
  }

  /** Until it is stopped, or ends. */
  async #watchOnce(connection: NatsConnection, turn: number): Promise<void> {
    const { Kvm } = await import('@nats-io/kv')
    const kv = await new Kvm(connection).open(this.#from.bucket)
    const { size, values } = await kv.status()
    if (size > MAX_BUCKET_BYTES) throw new Error(`${size} bytes are more than ${MAX_BUCKET_BYTES}`)
    const view = new BucketView()
    const entries = await kv.watch()
    if (turn !== this.#turn) return entries.stop()
    this.#stopWatch = () => entries.stop()
    const timer = setInterval(
      () =>
        void this.#recheck(
          kv,
          () => view.revision,
          () => entries.stop(),
        ),
      RECHECK_MS,
    )
    timer.unref()
    try {
      if (values === 0) await this.#take(view)
      for await (const entry of entries) {
        view.take(entry)
        if (entry.delta === 0 && entries.getPending() === 0) await this.#take(view)
      }
    } finally {
      clearInterval(timer)
    }
  }

  /** A bucket that was made anew, or a watch that the server has forgotten, tells nothing. */
  async #recheck(kv: KV, seen: () => number, stop: () => void): Promise<void> {
    const before = seen()
    const { streamInfo } = await kv.status().catch(() => ({ streamInfo: undefined }))
    if (streamInfo === undefined || seen() !== before) return
    if (streamInfo.state.last_seq !== before) stop()
  }

  async #take(view: BucketView): Promise<void> {
    this.#problem = undefined
    for (const name of this.#listProblems.keys()) if (!view.lists.has(name)) this.#listProblems.delete(name)
    for (const [name, bytes] of view.lists) {
      if (bytes === undefined) continue
      try {
        if (!this.#kept.hasList(name, bytes)) {
          await parseList(Buffer.from(bytes), `${this.#from.bucket}/lists/${name}`, this.#closing.signal)
          this.#kept.keepList(name, bytes)
        }
        this.#listProblems.delete(name)
      } catch (error) {
        if (this.#closing.signal.aborted) return
        const problem = `list ${name} stays as it was: ${(error as Error).message}`
        if (this.#listProblems.get(name) !== problem) this.#note(problem)
        this.#listProblems.set(name, problem)
      }
      view.forgetBytes(name)
    }
    const problems = [...view.problems].map(([key, problem]) => `bucket ${this.#from.bucket}/${key}: ${problem}`)
    for (const problem of problems) if (!this.#keyProblems.has(problem)) this.#note(problem)
    this.#keyProblems = new Set(problems)
    this.#view = view
    this.#heard()
    await this.#tell(view)
  }

  /** Where another policy can be read now. */
  async #tell(view: BucketView): Promise<void> {
    if (this.#onChange === undefined || this.#signature(view) === this.#told) return
    this.#told = this.#signature(view)
    await this.#onChange()
  }

  #signature({ policy, lists }: BucketView): string {
    const there = Object.keys(this.#kept.lists).filter((name) => lists.has(name))
    return JSON.stringify([policy && Buffer.from(policy.bytes).toString('base64'), there])
  }

  #tellProblem(problem: string): void {
    if (this.#problem !== problem) this.#note(problem)
    this.#problem = problem
  }
}
