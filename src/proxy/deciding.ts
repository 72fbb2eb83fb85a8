import type { Decision } from '../config/policy-types.ts'
import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { type Finding, type FlowFacts, UNKNOWN } from '../policy/facts.ts'
import type { Decided, Policy } from '../policy/policy.ts'
import { isOnward, likelyUpstream } from './destination.ts'
import type { FlowHooks } from './flow-hooks.ts'
import { type HostCheck, type HostOutcome, isRefusedHost, leadsToOriginalDst, namesHost } from './host-check.ts'
import { Peek, type PeekOwner, type PeekRefusal } from './peek.ts'

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

export type TurnedAway = PeekRefusal | 'hook-failed' | 'host-mismatch'

/** What is asked beside the policy. */
export interface DecidingOptions {
  readonly known: Pick<FlowFacts, 'learntNames' | 'link'>
  readonly hooks: FlowHooks | undefined
  readonly hostCheck: HostCheck
}

export type FinalDecision = Decided & { readonly kind: 'decided' }

/**
 * Finds what becomes of one TCP flow: what the policy says by what is known of it, and where a rule or a hook wants more, by its first
 * bytes; then, where the rules would let it go on, what the hook says; and whether the host that it names is to be had where it goes.
 */
export class Deciding implements PeekOwner {
  readonly #flow: Undecided
  readonly #policy: Policy
  readonly #known: Pick<FlowFacts, 'learntNames' | 'link'>
  #peek: Peek | undefined
  #isLate = false
  readonly #hooks: FlowHooks | undefined
  readonly #hostCheck: HostCheck
  /** The hook, then the name servers: the first may answer within its call. */
  readonly #stopAsking: (() => void)[] = []

  constructor(flow: Undecided, policy: Policy, { known, hooks, hostCheck }: DecidingOptions) {
    this.#flow = flow
    this.#policy = policy
    this.#known = known
    this.#hostCheck = hostCheck
    this.#hooks = hooks?.decides === true ? hooks : undefined
  }

  /** `fd`: the client's socket. */
  begin(fd: number): void {
    const facts = this.#facts(undefined)
    const decided = this.#policy.decide(facts)
    const wants = decided.kind === 'inspect' || this.#mayAsk(decided) || this.#checks(decided.decision)
    if (!wants) this.#flow.onDecided(decided, facts, undefined)
    else if (this.#policy.speaksFirst(this.#flow.originalDst.port)) this.onPeeked(UNKNOWN, true)
    else {
      this.#peek = new Peek(fd, this.#policy.peek, this)
      this.#peek.begin()
    }
  }

  /** The flow goes on, and its server may speak; the client's first bytes are looked at when they come, however late that is. */
  lookOn(fd: number): void {
    this.#isLate = true
    this.#peek = new Peek(fd, this.#policy.peek, this) // not begun: a silent client is waited for without end
  }

  /** Of the client's socket. */
  onEvents(events: number): void {
    this.#peek?.onEvents(events)
  }

  stop(): void {
    this.#peek?.stop()
    for (const stop of this.#stopAsking) stop()
  }

  onPeeked(finding: Finding, isSilent: boolean): void {
    this.#peek = undefined
    const facts = this.#facts(finding)
    const decided = this.#policy.decide(facts)
    if (decided.kind === 'inspect') return // cannot be: there is a finding
    if (this.#mayAsk(decided)) this.#ask(this.#hooks!, decided, { ...facts, finding }, isSilent)
    else this.#decided(decided, facts, isSilent)
  }

  #decided(decided: FinalDecision, facts: FlowFacts, isSilent: boolean): void {
    const { finding } = facts
    if (finding === undefined || !namesHost(finding) || !this.#checks(decided.decision)) {
      this.#tell(decided, facts, isSilent)
      return
    }
    const { client, originalDst } = this.#flow
    const stop = this.#hostCheck.ask(
      { client, originalDst, finding, learntNames: this.#known.learntNames },
      (outcome) => {
        this.#flow.hostChecked = outcome
        if (isRefusedHost(this.#policy, outcome)) this.#flow.onTurnedAway('host-mismatch', finding)
        else this.#tell(decided, facts, isSilent)
      },
    )
    this.#stopAsking.push(stop)
  }

  #tell(decided: FinalDecision, facts: FlowFacts, isSilent: boolean): void {
    if (this.#isLate) this.#flow.onDecidedLate(decided, facts)
    else this.#flow.onDecided(decided, facts, isSilent ? this : undefined)
  }

  /** A hook is asked about what the rules would let go on. */
  #mayAsk({ decision }: FinalDecision): boolean {
    return this.#hooks !== undefined && isOnward(decision)
  }

  /** Whether the host that the flow names is compared with its address. What was dialled before it had said one, went to that address. */
  #checks(decision: Decision): boolean {
    if (this.#policy.hostCheck === 'off') return false
    const isByName = decision.kind === 'via' && decision.to === undefined
    return leadsToOriginalDst(decision, this.#flow.listener) || (this.#isLate && isByName)
  }

  #ask(hooks: FlowHooks, decided: FinalDecision, facts: FlowFacts & { finding: Finding }, isSilent: boolean): void {
    const { finding } = facts
    const { listener, client, originalDst, upstream } = this.#flow
    const { rule, decision } = decided
    const asked = {
      listener: listener.name,
      transport: 'tcp' as const,
      client,
      originalDst,
      upstream: isOnward(decision) ? likelyUpstream(decision, { originalDst, upstream }) : upstream,
      names: this.#known.learntNames,
      rule,
    }
    const stop = hooks.ask(asked, finding, (answer) => {
      if (answer === 'failed') this.#flow.onTurnedAway('hook-failed', finding)
      else if (answer === undefined) this.#decided(decided, facts, isSilent)
      else this.#decided({ kind: 'decided', rule: 'onFlow', decision: answer }, facts, isSilent)
    })
    this.#stopAsking.push(stop)
  }

  onPeekRefused(why: PeekRefusal): void {
    this.#flow.onTurnedAway(why)
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
      ...this.#known,
      at,
    }
  }
}
