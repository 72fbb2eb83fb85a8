import { formatMoment } from '../config/moment.ts'
import type { PolicyMatch } from '../config/policy-types.ts'
import { matchesPattern, type NameEntry, parseNameEntry } from '../net/name-entry.ts'
import { type NameSet, NameSetBuilder } from '../net/name-set.ts'
import { formatPortRange, portsContain } from '../net/ports.ts'
import { formatPrefix, type Prefix, prefixContains } from '../net/prefix.ts'
import { type PrefixSet, PrefixSetBuilder } from '../net/prefix-set.ts'
import type { Answer, Condition } from './condition.ts'
import type { FlowFacts } from './facts.ts'
import type { List } from './list.ts'
import { isWithin } from './time-window.ts'

/** What a list holds at this moment, by its name. */
export type ListOf = (name: string) => List

/** What a rule asks, the cheapest first; what only the first bytes can tell comes last. */
export function conditionsOf(match: PolicyMatch, listOf: ListOf): Condition[] {
  return [
    ...given(
      'listeners',
      match.listeners,
      oneOf((facts) => facts.listener),
    ),
    ...given(
      'protocols',
      match.protocols,
      oneOf((facts) => facts.protocol),
    ),
    ...portCondition(match),
    ...prefixCondition('sources', match.sources, (facts) => facts.client.address),
    ...prefixCondition('destinations', match.destinations, (facts) => facts.originalDst.address),
    ...interfaceCondition(match),
    ...timeCondition(match),
    ...macCondition(match),
    ...detectedCondition(match),
    ...hostCondition(match),
    ...listCondition(match, listOf),
  ]
}

type Asked<T> = (wanted: readonly T[]) => Pick<Condition, 'ask' | 'found'>

function given<T extends string>(key: string, wanted: readonly T[], asked: Asked<T>): Condition[] {
  return wanted.length === 0 ? [] : [{ text: `${key} ${wanted.join(',')}`, ...asked(wanted) }]
}

function oneOf<T extends string>(read: (facts: FlowFacts) => T): Asked<T> {
  return (wanted) => ({ ask: (facts) => answer(wanted.includes(read(facts))), found: read })
}

function portCondition({ ports }: PolicyMatch): Condition[] {
  if (ports.length === 0) return []
  return [
    {
      text: `ports ${ports.map(formatPortRange).join(',')}`,
      ask: ({ originalDst }) => answer(portsContain(ports, originalDst.port)),
      found: ({ originalDst }) => `${originalDst.port}`,
    },
  ]
}

const FEW = 16 // a set of its own takes longer to build, and kilobytes

function prefixCondition(
  key: string,
  prefixes: readonly Prefix[],
  addressOf: (facts: FlowFacts) => string,
): Condition[] {
  if (prefixes.length === 0) return []
  const set = prefixes.length <= FEW ? undefined : prefixSet(prefixes)
  const holds = (address: string) => set?.has(address) ?? prefixes.some((prefix) => prefixContains(prefix, address))
  return [
    {
      text: `${key} ${shortened(prefixes.map(formatPrefix))}`,
      ask: (facts) => answer(holds(addressOf(facts))),
      found: addressOf,
    },
  ]
}

function timeCondition({ times }: PolicyMatch): Condition[] {
  if (times.length === 0) return []
  return [
    {
      text: `times ${times.map(({ text }) => text).join(', ')}`,
      ask: ({ at }) => answer(times.some((window) => isWithin(window, at))),
      found: ({ at }) => formatMoment(at),
    },
  ]
}

function interfaceCondition({ interfaces }: PolicyMatch): Condition[] {
  if (interfaces.length === 0) return []
  const matches = (name: string) =>
    interfaces.some((one) => (one.endsWith('*') ? name.startsWith(one.slice(0, -1)) : name === one))
  return [
    {
      text: `interfaces ${shortened(interfaces)}`,
      ask: ({ link }) => answer(link?.interface !== undefined && matches(link.interface)),
      found: ({ link }) => link?.interface ?? 'no interface known',
    },
  ]
}

/** Of a client whose MAC is not known it is not so. */
function macCondition({ macs }: PolicyMatch): Condition[] {
  if (macs.length === 0) return []
  const wanted = new Set(macs)
  return [
    {
      text: `macs ${shortened(macs)}`,
      ask: ({ link }) => answer(link?.mac !== undefined && wanted.has(link.mac)),
      found: ({ link }) => link?.mac ?? 'no MAC known',
    },
  ]
}

function detectedCondition({ detected }: PolicyMatch): Condition[] {
  if (detected.length === 0) return []
  const ofQuestions = detected.every((protocol) => protocol === 'dns') // no first bytes are ever found to be that: nobody waits for them
  const unseen = ({ isNamelessQuestion }: FlowFacts) => (ofQuestions && !isNamelessQuestion ? 'no' : 'unknown')
  return [
    {
      text: `detected ${detected.join(',')}`,
      ask: (facts) => (facts.finding === undefined ? unseen(facts) : answer(detected.includes(facts.finding.protocol))),
      found: (facts) => facts.finding?.protocol ?? (unseen(facts) === 'no' ? 'no DNS listener' : 'not looked at yet'),
    },
  ]
}

function hostCondition({ hosts }: PolicyMatch): Condition[] {
  if (hosts.length === 0) return []
  const names = hosts.length <= FEW ? fewNames(hosts) : nameSet(hosts)
  return [{ text: `hosts ${shortened(hosts)}`, ask: (facts) => askHost(facts, names), found: foundHost }]
}

/** A list of names is asked about the flow's host, a list of prefixes about its destination, and one with both about both. */
function listCondition({ lists }: PolicyMatch, listOf: ListOf): Condition[] {
  if (lists.length === 0) return []
  const ask = (facts: FlowFacts): Answer => {
    const held = lists.map(listOf)
    if (held.some(({ prefixes }) => prefixes.has(facts.originalDst.address))) return 'yes'
    const answers = held.filter(({ names }) => names.size > 0).map(({ names }) => askHost(facts, names))
    return answers.find((one) => one !== 'no') ?? 'no'
  }
  const found = (facts: FlowFacts) => `${facts.originalDst.address}, ${foundHost(facts)}`
  return [{ text: `lists ${lists.join(',')}`, ask, found }]
}

/** What the flow says itself counts; names from DNS only where it says nothing. */
function askHost({ finding, learntNames }: FlowFacts, names: Pick<NameSet, 'has'>): Answer {
  if (finding === undefined) return 'unknown'
  return answer(finding.host === undefined ? learntNames.some((name) => names.has(name)) : names.has(finding.host))
}

function foundHost({ finding, learntNames }: FlowFacts): string {
  if (finding === undefined) return 'not looked at yet'
  if (finding.host !== undefined) return finding.host
  return learntNames.length === 0 ? 'no name' : `${learntNames.join(', ')} by DNS`
}

function answer(isSo: boolean): Answer {
  return isSo ? 'yes' : 'no'
}

function prefixSet(prefixes: readonly Prefix[]): PrefixSet {
  const builder = new PrefixSetBuilder()
  for (const prefix of prefixes) builder.add(prefix)
  return builder.build()
}

function nameSet(entries: readonly string[]): NameSet {
  const builder = new NameSetBuilder()
  for (const text of entries) builder.add(parseNameEntry(text)!) // config has parsed them before
  return builder.build()
}

function fewNames(entries: readonly string[]): Pick<NameSet, 'has'> {
  const matchers = entries.map((text) => matcherOf(parseNameEntry(text)!))
  return { has: (name) => matchers.some((matches) => matches(name)) }
}

function matcherOf(entry: NameEntry): (name: string) => boolean {
  if (entry.kind === 'pattern') {
    const parts = entry.text.split('*')
    return (name) => matchesPattern(name, parts)
  }
  const { kind, name: wanted } = entry
  const below = `.${wanted}`
  if (kind === 'exact') return (name) => name === wanted
  return (name) => name.endsWith(below) || (kind === 'suffix' && name === wanted)
}

const SHOWN = 4

function shortened(texts: readonly string[]): string {
  const rest = texts.length - SHOWN
  return `${texts.slice(0, SHOWN).join(',')}${rest > 0 ? ` and ${rest} more` : ''}`
}
