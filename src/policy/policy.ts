import type { Decision, HostCheckMode, PeekConfig, PolicyConfig } from '../config/policy-types.ts'
import { portsContain } from '../net/ports.ts'
import type { Answer, Condition } from './condition.ts'
import { conditionsOf, type ListOf } from './conditions.ts'
import type { FlowFacts } from './facts.ts'
import { RuleIndex } from './rule-index.ts'

export type Decided =
  /** `rule`: the name of the one that matched; undefined where none did. */
  | { readonly kind: 'decided'; readonly rule: string | undefined; readonly decision: Decision }
  /** A rule asks about the first bytes of the flow: decide again with a finding. */
  | { readonly kind: 'inspect' }

/** Why a rule decided, or did not. */
export interface RuleAccount {
  /** Undefined: what is decided where no rule matches. */
  readonly rule: string | undefined
  readonly answer: Answer
  readonly decision: Decision
  /** `ports 80,443: found 25`: what was not so, or is not known yet; undefined for the rule that matched. */
  readonly because: string | undefined
}

type Decidedly = Decided & { readonly kind: 'decided' }

interface CompiledRule {
  readonly decided: Decidedly
  readonly conditions: readonly Condition[]
}

const INSPECT: Decided = { kind: 'inspect' }

/** The rules of a config, made ready to be asked. The first that matches decides. It never changes; a reload makes another. */
export class Policy {
  readonly peek: PeekConfig
  /** Whether a rule asks by which link a flow came. */
  readonly asksLink: boolean
  readonly hostCheck: HostCheckMode
  readonly #rules: readonly CompiledRule[]
  readonly #index: RuleIndex
  readonly #otherwise: Decidedly

  /** `listOf`: asked each time, since lists change under a policy. */
  constructor(config: PolicyConfig, listOf: ListOf) {
    this.peek = config.peek
    this.asksLink = config.rules.some(({ match }) => match.interfaces.length > 0 || match.macs.length > 0)
    this.hostCheck = config.hostCheck
    this.#rules = config.rules.map(({ name, match, decision }) => ({
      decided: { kind: 'decided', rule: name, decision },
      conditions: conditionsOf(match, listOf),
    }))
    this.#index = new RuleIndex(config.rules.map(({ match }) => match))
    this.#otherwise = { kind: 'decided', rule: undefined, decision: config.otherwise }
  }

  /** Whether clients of this port wait for the server, so that nobody waits for them. */
  speaksFirst(port: number): boolean {
    return portsContain(this.peek.serverFirst, port)
  }

  decide(facts: FlowFacts): Decided {
    this.#index.narrow(facts)
    for (let at = this.#index.next(0); at >= 0; at = this.#index.next(at + 1)) {
      const { decided, conditions } = this.#rules[at]!
      if (this.#index.isCertain(at)) return decided
      const answer = ask(conditions, facts)
      if (answer === 'yes') return decided
      if (answer === 'unknown') return INSPECT
    }
    return this.#otherwise
  }

  /** One account for each rule up to the first that certainly decides, for which `answer` is yes: the others may not know the first bytes. */
  explain(facts: FlowFacts): RuleAccount[] {
    const accounts: RuleAccount[] = []
    for (const { decided, conditions } of this.#rules) {
      const { rule, decision } = decided
      const answer = ask(conditions, facts)
      const found = conditions.find((condition) => condition.ask(facts) === answer)
      const because = answer === 'yes' || found === undefined ? undefined : `${found.text}: found ${found.found(facts)}`
      accounts.push({ rule, answer, decision, because })
      if (answer === 'yes') return accounts
    }
    const { decision } = this.#otherwise
    return [...accounts, { rule: undefined, answer: 'yes', decision, because: undefined }]
  }
}

/** Whether all are met. One that is not met decides, also where another is not known yet. */
function ask(conditions: readonly Condition[], facts: FlowFacts): Answer {
  let answer: Answer = 'yes'
  for (const condition of conditions) {
    const one = condition.ask(facts)
    if (one === 'no') return 'no'
    if (one === 'unknown') answer = 'unknown'
  }
  return answer
}
