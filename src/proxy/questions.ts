import type { Decision } from '../config/policy-types.ts'
import type { Protocol } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { FlowFacts, FlowLink } from '../policy/facts.ts'
import type { ProxyContext } from './context.ts'
import { destinationOf } from './destination.ts'

/** Who asks, and whom. May be computed when it is asked for. */
export interface Asker {
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /** Undefined where no rule asks about it. */
  readonly link?: FlowLink | undefined
}

/** What becomes of a question. */
export type QuestionDecision =
  /** `to`: by that server, in place of those that the app would ask. */
  | { readonly kind: 'forward'; readonly to: Endpoint | undefined }
  | { readonly kind: 'reject'; readonly by: 'refused' | 'nxdomain' | 'drop' }
  | { readonly kind: 'answer'; readonly addresses: readonly string[]; readonly ttlSeconds: number }
  /** It should have gone on, and cannot. */
  | { readonly kind: 'failed' }

export const GO_ON: QuestionDecision = { kind: 'forward', to: undefined }
const REFUSED: QuestionDecision = { kind: 'reject', by: 'refused' }
const NXDOMAIN: QuestionDecision = { kind: 'reject', by: 'nxdomain' }
const DROPPED: QuestionDecision = { kind: 'reject', by: 'drop' }
const FAILED: QuestionDecision = { kind: 'failed' }

/** A decision, or how to give up waiting for it. */
export type QuestionOutcome = QuestionDecision | { readonly kind: 'waits'; readonly giveUp: () => void }

/** Whom an app asks about each question of its clients: the policy of this moment, then the hook. */
export class Questions {
  readonly #context: ProxyContext
  readonly #facts: QuestionFacts
  readonly #listener: string
  /** That decided last. */
  #rule: string | undefined

  /** `listener`: the name of the app's. */
  constructor(listener: string, context: ProxyContext) {
    this.#context = context
    this.#listener = listener
    this.#facts = new QuestionFacts(listener)
  }

  /** Whether there is a policy; if not, all questions go on. */
  get isOpen(): boolean {
    return this.#context.policy() !== undefined
  }

  /**
   * What the rules say. `name`: as in lists of names, in lower case and without the root's dot; undefined: there is none. Nothing is kept of
   * `asker`.
   */
  decide(asker: Asker, transport: Protocol, name: string | undefined): QuestionDecision {
    const { policy, shadow } = this.#context
    const asked = policy()
    if (asked === undefined) return GO_ON
    const facts = this.#facts.of(asker, transport, name)
    const decided = asked.decide(facts)
    if (decided.kind === 'inspect') return DROPPED // cannot be: there is a finding
    shadow()?.compare(facts, decided)
    this.#rule = decided.rule
    return this.#applied(decided.rule, decided.decision, facts)
  }

  /** Whether there is a hook, which is asked about what the rules let go on. */
  get hasHook(): boolean {
    return this.#context.hooks?.questions.isThere === true
  }

  /**
   * What the hook says of the question that was decided last, as `decided`. `type`: of the record that is asked for. Nothing is told to `done`
   * unless it is to be waited for.
   */
  askHook(
    decided: QuestionDecision,
    { client, originalDst }: Asker,
    question: { readonly transport: Protocol; readonly name: string; readonly type: number },
    done: (decision: QuestionDecision) => void,
  ): QuestionOutcome {
    let now: QuestionDecision | undefined
    let isWaiting = false
    const asked = { ...question, listener: this.#listener, client, originalDst, rule: this.#rule }
    const giveUp = this.#context.hooks!.questions.ask(asked, (answer) => {
      const decision = answer === 'failed' ? FAILED : (answer ?? decided)
      if (isWaiting) done(decision)
      else now = decision
    })
    isWaiting = true
    return now ?? { kind: 'waits', giveUp }
  }

  #applied(rule: string | undefined, decision: Decision, { client, originalDst }: FlowFacts): QuestionDecision {
    const { kind } = decision
    if (kind === 'reject') return TURNED_AWAY[decision.rejection] ?? REFUSED
    if (kind === 'via' || kind === 'handle') return REFUSED // it would go another way than the rule says
    const { rates, pools, resources, onBypass } = this.#context
    if (kind === 'bypass') {
      onBypass(originalDst.address, decision.forMs)
      return GO_ON
    }
    const { to, limit } = decision
    if (limit !== undefined && !rates.admits(rule, limit, client.address, resources.loop.now)) return REFUSED
    if (to === undefined) return GO_ON
    const destination = destinationOf(decision, { client, originalDst, upstream: originalDst }, pools)
    if (destination.kind === 'none') return FAILED
    destination.place?.leave() // it counts sessions, of which a question is none
    return { kind: 'forward', to: destination.endpoint }
  }
}

/** All else is refused: a resolver has no other word for "not here". */
const TURNED_AWAY: Readonly<Partial<Record<string, QuestionDecision>>> = { nxdomain: NXDOMAIN, drop: DROPPED }

/** What rules are told of a question. One object serves all, and an end is only worked out where a rule asks about it. */
class QuestionFacts implements FlowFacts {
  readonly listener: string
  readonly finding: { readonly protocol: 'dns'; host: string | undefined } = { protocol: 'dns', host: undefined }
  readonly learntNames: readonly string[] = []
  protocol: Protocol = 'udp'
  #asker: Asker | undefined
  #client: Endpoint | undefined
  #originalDst: Endpoint | undefined

  constructor(listener: string) {
    this.listener = listener
  }

  of(asker: Asker, transport: Protocol, name: string | undefined): this {
    this.#asker = asker
    this.protocol = transport
    this.#client = undefined
    this.#originalDst = undefined
    this.finding.host = name
    return this
  }

  get client(): Endpoint {
    this.#client ??= this.#asker!.client
    return this.#client
  }

  get originalDst(): Endpoint {
    this.#originalDst ??= this.#asker!.originalDst
    return this.#originalDst
  }

  get link(): FlowLink | undefined {
    return this.#asker!.link
  }

  get at(): Date {
    return new Date()
  }
}
