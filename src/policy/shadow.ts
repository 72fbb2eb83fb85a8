import type { Decision } from '../config/policy-types.ts'
import { formatEndpoint } from '../net/address.ts'
import { formatDecision, formatRule } from './decision-text.ts'
import type { FlowFacts } from './facts.ts'
import type { Decided, Policy } from './policy.ts'

/** Pairs of rules that are counted by name. */
const MAX_PAIRS = 256
/** Lines for the operator, one for the first flow of a pair, until the policies are read again. */
const MAX_NOTES = 20

/** How a shadow policy and the one that acts agree; of all shadow policies since the start. */
export interface ShadowStats {
  /** Flows that both have decided. */
  readonly decided: number
  /** Of these, where the decisions were not the same. */
  readonly differed: number
  /** Flows that the shadow policy would have looked into, and whose first bytes were not there to be seen. */
  readonly undecided: number
  /** Differences by the rules: `no-telnet → otherwise`: the one that acted, the one of the shadow policy. */
  readonly byRules: Readonly<Record<string, number>>
}

/** What a shadow policy said otherwise. */
export interface ShadowDifference {
  readonly rule: string | undefined
  /** `reject by reset`. */
  readonly decision: string
}

/** Counters of a proxy: they outlive the policies. */
export class ShadowCounts {
  decided = 0
  differed = 0
  undecided = 0
  readonly #byRules = new Map<string, number>()

  countPair(pair: string): void {
    const name = this.#byRules.has(pair) || this.#byRules.size < MAX_PAIRS ? pair : 'others'
    this.#byRules.set(name, (this.#byRules.get(name) ?? 0) + 1)
  }

  get stats(): ShadowStats {
    const { decided, differed, undecided } = this
    return { decided, differed, undecided, byRules: Object.fromEntries(this.#byRules) }
  }
}

type Decidedly = Decided & { readonly kind: 'decided' }

/** A second policy: it is asked about every flow, and never acts. */
export class Shadow {
  readonly policy: Policy
  readonly #counts: ShadowCounts
  readonly #note: (line: string) => void
  readonly #noted = new Set<string>()

  constructor(policy: Policy, counts: ShadowCounts, note: (line: string) => void) {
    this.policy = policy
    this.#counts = counts
    this.#note = note
  }

  /**
   * Undefined when both say the same. `inspect`: it depends on first bytes that `facts` do not have; nothing is counted then: compare again
   * with them, or giveUp().
   */
  compare(facts: FlowFacts, live: Decidedly): ShadowDifference | 'inspect' | undefined {
    const decided = this.policy.decide(facts)
    if (decided.kind === 'inspect') return 'inspect'
    this.#counts.decided++
    if (isSame(live.decision, decided.decision)) return undefined
    this.#counts.differed++
    const pair = `${formatRule(live.rule)} → ${formatRule(decided.rule)}`
    this.#counts.countPair(pair)
    const difference = { rule: decided.rule, decision: formatDecision(decided.decision) }
    this.#tell(pair, facts, live, difference)
    return difference
  }

  giveUp(): void {
    this.#counts.undecided++
  }

  #tell(pair: string, facts: FlowFacts, live: Decidedly, { rule, decision }: ShadowDifference): void {
    if (this.#noted.has(pair) || this.#noted.size >= MAX_NOTES) return
    this.#noted.add(pair)
    const { protocol, client, originalDst, finding } = facts
    const host = finding?.host === undefined ? '' : ` (${finding.host})`
    const flow = `${protocol} ${client.address} → ${formatEndpoint(originalDst)}${host}`
    const acted = `${formatDecision(live.decision)} by ${formatRule(live.rule)}`
    const rest = this.#noted.size === MAX_NOTES ? '; from now on differences are only counted' : ''
    this.#note(`shadow differs: ${flow}: ${acted}, the shadow policy says ${decision} by ${formatRule(rule)}${rest}`)
  }
}

function isSame(one: Decision, other: Decision): boolean {
  return one.kind === other.kind && JSON.stringify(one) === JSON.stringify(other)
}
