import type { Protocol, RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Interception } from './interception.ts'
import { addressKeyword, prefixText, withoutContained } from './nft-match.ts'
import { chain, flowSet, markIn, markIs, neverIntercepted, SYN } from './nft-text.ts'

const FLOWS_TIMEOUT = '1h' // each packet begins it anew; what is silent for longer is forwarded still, but not counted
const FLOWS_SIZE = 262_144 // flows beyond it are forwarded, too, and their connections counted, but not their packets
const ELEMENTS_PER_LINE = 4

/** Comments of the rules that count all that was bypassed since the rules were loaded. */
export const BYPASS_CONNECTIONS = 'bypass connections'
export const BYPASS_PACKETS = 'bypass packets'

/** What a set's elements count: beginnings of connections, or all other packets. Each set is asked for one of them alone. */
export type BypassCount = 'connections' | 'packets'

export function bypassSet(count: BypassCount, family: Family): string {
  return count === 'connections' ? `bypass${family}` : `bypassed${family}`
}

/** Whether a set of an nft table is one of them: elements come and go there while Limpid runs. */
export function isBypassSet(name: string): boolean {
  return /^bypass(ed)?[46]$/.test(name)
}

/** The sets that a table needs for what its listeners take. */
export function bypassSetsOf(
  interceptions: readonly Pick<Interception, 'family' | 'protocol'>[],
): { readonly name: string; readonly family: Family; readonly count: BypassCount }[] {
  return familiesOf(interceptions).flatMap((family) => {
    const tcp = interceptions.some((one) => one.family === family && one.protocol === 'tcp')
    const counts: readonly BypassCount[] = tcp ? ['connections', 'packets'] : ['packets']
    return counts.map((count) => ({ name: bypassSet(count, family), family, count }))
  })
}

/**
 * Destinations that the kernel forwards by itself, in one nft table. They are looked up before any listener: by the SYNs of
 * connections, so that those that were taken go on, and by each datagram. What is found gets the bypass mark, by which all other
 * rules of ours let it by, the guard's too.
 *
 * Each prefix counts for itself, by the counter of its element. Lookups alone would count answers for questions where clients have
 * addresses of a bypassed prefix, too: so flows are noted, and what is forwarded is counted by them.
 */
export interface BypassRules {
  readonly sets: readonly string[]
  /** The chains `bypass` and `bypassed`, which the rules below need. */
  readonly chains: readonly string[]
  /** Rules for beginnings of connections and datagrams, to stand before those of listeners. `fib`: not in the bridge family. */
  decide(protocols: readonly Protocol[], families: readonly Family[], options?: { readonly fib: boolean }): string[]
  /** Rules that count the other packets of flows that were bypassed, of these protocols: on their way to the server, or back. */
  count(direction: 'sent' | 'answered', protocols: readonly Protocol[]): string[]
}

/** `interceptions`: all of the table. `note`: rules that note a bypassed datagram, so that its answers are let by. */
export function bypassRules(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  prefixes: readonly Prefix[],
  note: readonly string[] = [],
): BypassRules {
  const families = familiesOf(interceptions)
  const uses = (protocol: Protocol) => interceptions.some((one) => one.protocol === protocol)
  return {
    sets: [
      ...bypassSetsOf(interceptions).flatMap(({ name, family }) => elementSet(name, family, prefixes)),
      ...families.flatMap((family) => flowSet(flowsOf(family), family, FLOWS_TIMEOUT, FLOWS_SIZE)),
    ],
    chains: chain('bypass', undefined, [
      '# forwarded by the kernel; counted, and known by its mark',
      ...(uses('tcp') ? [`meta l4proto tcp counter comment "${BYPASS_CONNECTIONS}"`] : []),
      ...(uses('udp') ? [`meta l4proto udp counter comment "${BYPASS_PACKETS}"`] : []),
      ...families.map((family) => `update @${flowsOf(family)} { ${flowTuple(family, 'sent')} }`),
      ...note,
      `meta mark set ${markIn(rules, rules.bypassMark)}`,
    ]),
    decide: (protocols, of, { fib } = { fib: true }) => [
      '# destinations that the kernel forwards by itself',
      ...[...of].sort().flatMap((family) => {
        const elsewhere = fib ? 'fib daddr type != local ' : ''
        const ask = (count: BypassCount) => `${elsewhere}${addressKeyword(family)} daddr @${bypassSet(count, family)}`
        return [
          ...(protocols.includes('tcp') ? [`${SYN} ${ask('connections')} goto bypass`] : []),
          ...(protocols.includes('udp') ? [`meta l4proto udp ${ask('packets')} goto bypass`] : []),
        ]
      }),
    ],
    count: (direction, protocols) => families.flatMap((family) => countLines(family, direction, protocols)),
  }
}

/** The chains that count where the kernel forwards, and on the path `local` where processes of this host send and receive. */
export function countingChains(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  { count }: BypassRules,
): string[] {
  const protocols = protocolsOf(interceptions)
  const lines = [`${markIs(rules, '!=', 0)} return`, ...count('sent', protocols), ...count('answered', protocols)]
  const isLocal = interceptions.some(({ path }) => path === 'local')
  const asked = protocols.length === 1 ? protocols[0] : `{ ${protocols.join(', ')} }`
  return [
    ...chain('bypassed', undefined, lines),
    ...['forward', ...(isLocal ? ['output', 'input'] : [])].flatMap((hook) =>
      chain(`bypassed-${hook}`, `filter hook ${hook} priority filter`, [`meta l4proto ${asked} goto bypassed`]),
    ),
  ]
}

/**
 * The chains that let by what redirect and dnat listeners would take: chains of nat see the first packet of a flow alone, and here
 * each datagram is counted. What was rewritten already goes on as it began.
 */
export function bypassBeforeNat(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  bypass: BypassRules,
): string[] {
  const lines = (ones: readonly Interception[]) =>
    ones.length === 0
      ? []
      : [
          `${markIs(rules, '!=', 0)} return`,
          'ct status dnat return',
          ...neverIntercepted(),
          ...bypass.decide(protocolsOf(ones), familiesOf(ones)),
        ]
  const received = lines(interceptions.filter(({ path }) => path === 'forwarded'))
  return [
    ...chain(
      'bypass-prerouting',
      'filter hook prerouting priority dstnat - 1',
      received.length === 0 ? [] : ['iifname "lo" return', ...received],
    ),
    ...chain(
      'bypass-output',
      'route hook output priority -101',
      lines(interceptions.filter(({ path }) => path === 'local')),
    ),
  ]
}

/** What stands behind `elements = {`. Those within another one are left out: see BypassList. */
function elementSet(name: string, family: Family, prefixes: readonly Prefix[]): string[] {
  const elements = withoutContained(prefixes.filter((prefix) => prefix.family === family)).map(prefixText)
  const rows = Array.from({ length: Math.ceil(elements.length / ELEMENTS_PER_LINE) }, (_, i) =>
    elements.slice(i * ELEMENTS_PER_LINE, (i + 1) * ELEMENTS_PER_LINE),
  )
  return [
    `set ${name} {`,
    `\ttype ipv${family}_addr`,
    '\tflags interval,timeout',
    '\tcounter',
    ...(rows.length === 0 ? [] : ['\telements = {', ...rows.map((row) => `\t\t${row.join(', ')},`), '\t}']),
    '}',
    '',
  ]
}

/**
 * Each packet that is sent keeps its flow in the set. Of TCP answers need not: they are acknowledged, so packets are sent as long as
 * some come back. Another lookup of each packet is what the kernel's own way past us is slower by.
 */
function countLines(family: Family, direction: 'sent' | 'answered', protocols: readonly Protocol[]): string[] {
  const tuple = flowTuple(family, direction)
  const server = `${addressKeyword(family)} ${direction === 'sent' ? 'daddr' : 'saddr'}`
  const known = `${tuple} @${flowsOf(family)} ${server} @${bypassSet('packets', family)}`
  const keep = `update @${flowsOf(family)} { ${tuple} }`
  const end = `counter return comment "${BYPASS_PACKETS}"`
  if (direction === 'sent') return [`${known} ${keep} ${end}`]
  return protocols.map((protocol) => {
    const only = protocols.length === 1 ? '' : `meta l4proto ${protocol} `
    return `${only}${known} ${protocol === 'tcp' ? '' : `${keep} `}${end}`
  })
}

/** A flow of either protocol: of two with the same addresses and ports both are bypassed. */
function flowTuple(family: Family, direction: 'sent' | 'answered'): string {
  const ip = addressKeyword(family)
  const from = `${ip} saddr . th sport`
  const to = `${ip} daddr . th dport`
  return direction === 'sent' ? `${from} . ${to}` : `${to} . ${from}`
}

function flowsOf(family: Family): string {
  return `bypass-flows${family}`
}

function familiesOf(interceptions: readonly { readonly family: Family }[]): Family[] {
  return [...new Set(interceptions.map(({ family }) => family))].sort()
}

function protocolsOf(interceptions: readonly Interception[]): Protocol[] {
  return [...new Set(interceptions.map(({ protocol }) => protocol))].sort()
}
