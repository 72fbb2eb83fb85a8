import type { Decision } from '../config/policy-types.ts'
import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { type Finding, type FlowFacts, UNKNOWN } from '../policy/facts.ts'
import type { Decided, Policy } from '../policy/policy.ts'
import { type Consulted, type ConsultRefusal, consult, wantsFinding } from './consult.ts'
import type { FlowHooks } from './flow-hooks.ts'
import { type HostCheck, type HostOutcome, leadsToOriginalDst } from './host-check.ts'
import { Peek, type PeekOwner, type PeekRefusal } from './peek.ts'
import type { PeekBatch } from './peek-batch.ts'

/** A flow whose decision is wanted. Told once, within the call or later; not any more after stop(). */
export interface Undecided {
  readonly listener: Pick<ListenerConfig, 'name' | 'to'>
  readonly client: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  /** What was found about the host that it names. */
  hostChecked: HostOutcome | undefined
  /**
   * `facts`: by what it was decided. `late`: the client is silent, and what it says first has to be looked at before it goes on: see lookOn().
   */
  onDecided(decided: FinalDecision, facts: FlowFacts, late: Deciding | undefined): void
  /** About what a client that was silent has said at last. */
  onDecidedLate(decided: FinalDecision, facts: FlowFacts): void
  onTurnedAway(why: TurnedAway, finding?: Finding): void
}

export type TurnedAway = PeekRefusal | ConsultRefusal

/** What is asked beside the policy. */
export interface DecidingOptions {
  readonly known: Pick<FlowFacts, 'learntNames' | 'link'>
  readonly hooks: FlowHooks | undefined
  readonly hostCheck: HostCheck
  readonly peeks: PeekBatch
}

export type FinalDecision = Decided & { readonly kind: 'decided' }

/**
 * Finds what becomes of one TCP flow: what the policy says by what is known of it, and where a rule or a hook wants more, by its first
 * bytes; then, where the rules would let it go on, what the hook says; and whether the host that it names is to be had where it goes.
 */
export class Deciding implements PeekOwner, Consulted {
  readonly policy: Policy
  readonly hooks: FlowHooks | undefined
  readonly hostCheck: HostCheck
  readonly #flow: Undecided
  readonly #known: Pick<FlowFacts, 'learntNames' | 'link'>
  readonly #peeks: PeekBatch
  #peek: Peek | undefined
  #isLate = false
  #stopConsulting: (() => void) | undefined

  constructor(flow: Undecided, policy: Policy, { known, hooks, hostCheck, peeks }: DecidingOptions) {
    this.#flow = flow
    this.#known = known
    this.#peeks = peeks
    this.policy = policy
    this.hooks = hooks
    this.hostCheck = hostCheck
  }

  get upstream(): Endpoint {
    return this.#flow.upstream
  }

  /** `fd`: the client's socket. */
  begin(fd: number): void {
    const facts = this.#facts(undefined)
    const decided = this.policy.decide(facts)
    if (decided.kind === 'decided' && !wantsFinding(decided.decision, this)) {
      this.#flow.onDecided(decided, facts, undefined)
    } else if (this.policy.speaksFirst(this.#flow.originalDst.port)) this.onPeeked(UNKNOWN, true)
    else {
      this.#peek = new Peek(fd, this.policy.peek, this.#peeks, this)
      this.#peek.begin()
    }
  }

  /** The flow goes on, and its server may speak; the client's first bytes are looked at when they come, however late that is. */
  lookOn(fd: number): void {
    this.#isLate = true
    this.#peek = new Peek(fd, this.policy.peek, this.#peeks, this) // not begun: a silent client is waited for without end
  }

  /** Of the client's socket. */
  onEvents(events: number): void {
    this.#peek?.onEvents(events)
  }

  stop(): void {
    this.#peek?.stop()
    this.#stopConsulting?.()
  }

  onPeeked(finding: Finding, isSilent: boolean): void {
    this.#peek = undefined
    const facts = this.#facts(finding)
    const decided = this.policy.decide(facts)
    if (decided.kind === 'inspect') return // cannot be: there is a finding
    this.#stopConsulting = consult(decided, facts, this, (decided, hostChecked) => {
      this.#flow.hostChecked = hostChecked
      if (typeof decided === 'string') this.#flow.onTurnedAway(decided, finding)
      else if (this.#isLate) this.#flow.onDecidedLate(decided, facts)
      else this.#flow.onDecided(decided, facts, isSilent ? this : undefined)
    })
  }

  /** What was dialled before the flow had named a host, went to its client's address. */
  checksHost(decision: Decision): boolean {
    if (this.policy.hostCheck === 'off') return false
    const isByName = decision.kind === 'via' && decision.to === undefined
    return leadsToOriginalDst(decision, this.#flow.listener) || (this.#isLate && isByName)
  }

  onPeekRefused(why: PeekRefusal): void {
    this.#flow.onTurnedAway(why)
  }

  #facts<F extends Finding | undefined>(finding: F): FlowFacts & { readonly finding: F } {
    const { listener, client, originalDst } = this.#flow
    const { learntNames, link } = this.#known
    return { listener: listener.name, protocol: 'tcp', client, originalDst, link, finding, learntNames, at: new Date() }
  }
}
