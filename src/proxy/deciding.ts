import type { Endpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { Decided, Policy } from '../policy/policy.ts'
import { Peek, type PeekOwner, type PeekRefusal } from './peek.ts'

/** A flow whose decision is wanted. Told once, within the call or later; not any more after stop(). */
export interface Undecided {
  readonly listener: { readonly name: string }
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /**
   * `facts`: by what it was decided. `late`: the client is silent, and what it says first has to be looked at before it goes on: see lookOn().
   */
  onDecided(decided: FinalDecision, facts: FlowFacts, late: Deciding | undefined): void
  /** About what a client that was silent has said at last. */
  onDecidedLate(decided: FinalDecision, facts: FlowFacts): void
  onPeekRefused(why: PeekRefusal): void
}

export type FinalDecision = Decided & { readonly kind: 'decided' }

const SILENT: Finding = { protocol: 'unknown', host: undefined }

/** Finds what the policy says of one TCP flow: by what is known of it, and where a rule asks for more, by its first bytes. */
export class Deciding implements PeekOwner {
  readonly #flow: Undecided
  readonly #policy: Policy
  readonly #learntNames: readonly string[]
  #peek: Peek | undefined
  #isLate = false

  constructor(flow: Undecided, policy: Policy, learntNames: readonly string[]) {
    this.#flow = flow
    this.#policy = policy
    this.#learntNames = learntNames
  }

  /** `fd`: the client's socket. */
  begin(fd: number): void {
    const facts = this.#facts(undefined)
    const decided = this.#policy.decide(facts)
    if (decided.kind === 'decided') this.#flow.onDecided(decided, facts, undefined)
    else if (this.#policy.speaksFirst(this.#flow.originalDst.port)) this.onPeeked(SILENT, true)
    else this.#peek = new Peek(fd, this.#policy.peek, this)
  }

  /** The flow goes on, and its server may speak; the client's first bytes are looked at when they come, however late that is. */
  lookOn(fd: number): void {
    this.#isLate = true
    this.#peek = new Peek(fd, { ...this.#policy.peek, silenceMs: 0 }, this)
  }

  /** Of the client's socket. */
  onEvents(events: number): void {
    this.#peek?.onEvents(events)
  }

  stop(): void {
    this.#peek?.stop()
  }

  onPeeked(finding: Finding, isSilent: boolean): void {
    const facts = this.#facts(finding)
    const decided = this.#policy.decide(facts)
    if (decided.kind === 'inspect') return // cannot be: there is a finding
    if (this.#isLate) this.#flow.onDecidedLate(decided, facts)
    else this.#flow.onDecided(decided, facts, isSilent ? this : undefined)
  }

  onPeekRefused(why: PeekRefusal): void {
    this.#flow.onPeekRefused(why)
  }

  #facts(finding: Finding | undefined): FlowFacts {
    const { listener, client, originalDst } = this.#flow
    const at = new Date()
    return {
      listener: listener.name,
      protocol: 'tcp',
      client,
      originalDst,
      finding,
      learntNames: this.#learntNames,
      at,
    }
  }
}
