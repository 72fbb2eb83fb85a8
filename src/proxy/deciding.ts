import type { Endpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { Decided, Policy } from '../policy/policy.ts'
import { Peek, type PeekOwner, type PeekRefusal } from './peek.ts'

/** A flow whose decision is wanted. Told once, within the call or later; not any more after stop(). */
export interface Undecided {
  readonly listener: { readonly name: string }
  readonly client: Endpoint
  readonly originalDst: Endpoint
  onDecided(decided: Decided & { readonly kind: 'decided' }, finding: Finding | undefined): void
  onPeekRefused(why: PeekRefusal): void
}

/** Finds what the policy says of one TCP flow: by what is known of it, and where a rule asks for more, by its first bytes. */
export class Deciding implements PeekOwner {
  readonly #flow: Undecided
  readonly #policy: Policy
  readonly #learntNames: readonly string[]
  #peek: Peek | undefined

  constructor(flow: Undecided, policy: Policy, learntNames: readonly string[]) {
    this.#flow = flow
    this.#policy = policy
    this.#learntNames = learntNames
  }

  /** `fd`: the client's socket. */
  begin(fd: number): void {
    const decided = this.#policy.decide(this.#facts(undefined))
    if (decided.kind === 'decided') this.#flow.onDecided(decided, undefined)
    else if (this.#policy.speaksFirst(this.#flow.originalDst.port))
      this.onPeeked({ protocol: 'unknown', host: undefined })
    else this.#peek = new Peek(fd, this.#policy.peek, this)
  }

  /** Of the client's socket. */
  onEvents(events: number): void {
    this.#peek?.onEvents(events)
  }

  stop(): void {
    this.#peek?.stop()
  }

  onPeeked(finding: Finding): void {
    const decided = this.#policy.decide(this.#facts(finding))
    if (decided.kind === 'decided') this.#flow.onDecided(decided, finding)
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
