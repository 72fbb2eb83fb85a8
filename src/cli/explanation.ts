import type { Colour } from '../colour.ts'
import { formatMoment } from '../config/moment.ts'
import { endpointText } from '../net/address.ts'
import type { Explanation } from '../policy/asked-flow.ts'
import { formatDecision, formatRule } from '../policy/decision-text.ts'
import type { FlowFacts } from '../policy/facts.ts'
import type { RuleAccount } from '../policy/policy.ts'

const WORDS = { yes: 'yes', no: 'no', unknown: 'perhaps' } as const

/** `no-telnet  no  ports 23: found 80`: one line for each rule, then what is decided. */
export function explanationLines({ facts, accounts, outcomes, notes }: Explanation, paint: Colour): string[] {
  const width =
    Math.max(...['decided', ...accounts.map(({ rule }) => formatRule(rule))].map(({ length }) => length)) + 2
  const line = (word: string, what: string) => `${paint.bold(word.padEnd(width))}${what}`
  return [
    line('flow', flowText(facts)),
    ...notes.map((note) => line('note', note)),
    ...accounts.map(({ rule, answer, because }) => {
      const word = WORDS[answer]
      const shown = answer === 'yes' ? paint.green(word) : answer === 'no' ? paint.dim(word) : paint.yellow(word)
      return line(formatRule(rule), because === undefined ? shown : `${shown}${' '.repeat(9 - word.length)}${because}`)
    }),
    line('decided', outcomesText(outcomes)),
    ...(outcomes.length > 1 ? [line('', 'its first bytes tell which: say --host NAME or --detected PROTOCOL')] : []),
  ]
}

/** `reject by forbidden, by rule blocked`, or several of these with `or`. */
export function outcomesText(outcomes: readonly RuleAccount[]): string {
  return outcomes
    .map(
      ({ rule, decision }) =>
        `${formatDecision(decision)}, ${rule === undefined ? 'as no rule matches' : `by ${rule}`}`,
    )
    .join('; or ')
}

function flowText({ listener, protocol, client, originalDst, link, finding, learntNames, at }: FlowFacts): string {
  const host = finding?.host === undefined ? '' : ` for ${finding.host}`
  const learnt = learntNames.length === 0 ? '' : `, known as ${learntNames.join(', ')}`
  const said = finding === undefined ? 'first bytes not known' : `${finding.protocol}${host}`
  const by = link?.interface === undefined ? '' : ` by ${link.interface}`
  const mac = link?.mac === undefined ? '' : ` (${link.mac})`
  return `${protocol} ${client.address}${mac}${by} → ${endpointText(originalDst)}, listener ${listener}, ${said}${learnt}, ${formatMoment(at)}`
}

/** What `--json` prints: its keys stay, and what is not known is null. */
export function explanationJson({ facts, accounts, outcomes, notes }: Explanation): object {
  const told = ({ rule, answer, decision, because }: RuleAccount) => ({
    rule: rule ?? null,
    answer,
    decision,
    because: because ?? null,
  })
  const { listener, protocol, client, originalDst, link, finding, learntNames, at } = facts
  return {
    flow: {
      client: client.address,
      originalDst: { address: originalDst.address, port: originalDst.port || null },
      protocol,
      listener,
      interface: link?.interface ?? null,
      mac: link?.mac ?? null,
      detected: finding?.protocol ?? null,
      host: finding?.host ?? null,
      learntNames,
      at: at.toISOString(),
    },
    rules: accounts.map(told),
    outcomes: outcomes.map(({ rule, decision }) => ({ rule: rule ?? null, decision })),
    notes,
  }
}
