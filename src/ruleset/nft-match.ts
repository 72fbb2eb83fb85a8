import type { Match, Protocol } from '../config/types.ts'
import { addressBytes, type Family } from '../net/address.ts'
import { formatPortRange, isAllPorts, type PortRange } from '../net/ports.ts'
import { formatPrefix, type Prefix, prefixContains } from '../net/prefix.ts'
import { hex } from './policy-routing.ts'

const INLINE_ELEMENTS = 8 // a longer list gets a name and stands above the chains, so that rules stay readable
const ELEMENTS_PER_LINE = 4

/** A named set of an nft table. */
export interface NamedSet {
  readonly name: string
  readonly family: Family
  readonly elements: readonly string[]
}

/** The named sets of one nft table, collected while its rules are written. Equal lists share one set. */
export class NamedSets {
  readonly #sets = new Map<string, NamedSet>()

  /** What to write after `ip saddr`: one prefix, `{ a, b }`, or `@name`. */
  expression(name: string, family: Family, prefixes: readonly Prefix[]): string {
    const elements = withoutContained(prefixes).map(prefixText)
    if (elements.length <= INLINE_ELEMENTS) return inlineSet(elements)
    this.#sets.set(`${name}${family}`, { name: `${name}${family}`, family, elements })
    return `@${name}${family}`
  }

  lines(): string[] {
    return [...this.#sets.values()].flatMap(({ name, family, elements }) => [
      `set ${name} {`,
      `\ttype ipv${family}_addr`,
      '\tflags interval',
      '\telements = {',
      ...chunks(elements, ELEMENTS_PER_LINE).map((chunk) => `\t\t${chunk.join(', ')},`),
      '\t}',
      '}',
      '',
    ])
  }
}

/** `"a"` or `{ "a", "b" }` after `iifname`. */
export function interfaceExpression(names: readonly string[]): string {
  return inlineSet(names.map((name) => `"${name}"`))
}

/** `80` or `{ 80, 8000-8100 }` after `tcp dport`; undefined for all ports. */
export function portExpression(ranges: readonly PortRange[]): string | undefined {
  if (ranges.length === 0 || isAllPorts(ranges)) return undefined
  return inlineSet(mergedRanges(ranges).map(formatPortRange))
}

/** What can be asked at the place where the rules stand. */
export interface MatchPlace {
  /** The name of a packet's interface: `iifname` where it was received, `oifname` where it is about to be sent. */
  readonly interfaces: 'iifname' | 'oifname'
  /** The sending process is known: in the hook output alone. */
  readonly processes: boolean
  readonly protocol: Protocol
  /** In nft's bridge family, where the interface is a port of a bridge. */
  readonly bridge?: true
}

export const RECEIVED: MatchPlace = { interfaces: 'iifname', processes: false, protocol: 'tcp' }
export const BRIDGED: MatchPlace = { ...RECEIVED, bridge: true }
export const SENT: MatchPlace = { interfaces: 'oifname', processes: true, protocol: 'tcp' }

/**
 * The conditions of a match for packets from client to server, joined by "and"; undefined when no packet of that family
 * can fulfil them. `name` prefixes the names of its sets.
 */
export function matchConditions(
  match: Match,
  family: Family,
  name: string,
  sets: NamedSets,
  place: MatchPlace = RECEIVED,
): string[] | undefined {
  const conditions: string[] = []
  if (match.interfaces.length > 0) conditions.push(`${place.interfaces} ${interfaceExpression(match.interfaces)}`)
  for (const [field, word, prefixes] of addressLists(match)) {
    if (prefixes.length === 0) continue
    const ofFamily = prefixes.filter((prefix) => prefix.family === family)
    if (ofFamily.length === 0) return undefined
    if (coversAll(ofFamily)) continue
    conditions.push(`${addressKeyword(family)} ${field} ${sets.expression(`${name}-${word}`, family, ofFamily)}`)
  }
  const ports = portExpression(match.ports)
  if (ports !== undefined) conditions.push(`${place.protocol} dport ${ports}`)
  if (place.processes && match.uids.length > 0)
    conditions.push(`meta skuid ${inlineSet(mergedRanges(match.uids).map(formatPortRange))}`)
  return conditions
}

/**
 * The conditions of not being excluded, but for cgroups: see inExcludedCgroup(). Each list excludes by itself; undefined when
 * one of them excludes everything.
 */
export function withoutConditions(
  exclude: Match,
  family: Family,
  name: string,
  sets: NamedSets,
  place: MatchPlace = RECEIVED,
): string[] | undefined {
  const conditions: string[] = []
  if (exclude.interfaces.length > 0) {
    conditions.push(`${place.interfaces} != ${interfaceExpression(exclude.interfaces)}`)
  }
  for (const [field, word, prefixes] of addressLists(exclude)) {
    const ofFamily = prefixes.filter((prefix) => prefix.family === family)
    if (ofFamily.length === 0) continue
    if (coversAll(ofFamily)) return undefined
    conditions.push(`${addressKeyword(family)} ${field} != ${sets.expression(`${name}-${word}`, family, ofFamily)}`)
  }
  if (exclude.ports.length > 0) {
    const ports = portExpression(exclude.ports)
    if (ports === undefined) return undefined
    conditions.push(`${place.protocol} dport != ${ports}`)
  }
  for (const { value, mask } of exclude.fwmarks) conditions.push(`meta mark & ${hex(mask)} != ${hex(value)}`)
  if (!place.processes) return conditions
  if (exclude.uids.length > 0) {
    conditions.push(`meta skuid != ${inlineSet(mergedRanges(exclude.uids).map(formatPortRange))}`)
  }
  return conditions
}

/**
 * The conditions of being in an excluded cgroup, each by itself. They have no negation: a process that lies less deep than the
 * cgroup has no ancestor on its level, and fails `!=` as it fails `==` (net/netfilter/nft_socket.c).
 */
export function inExcludedCgroup({ cgroups }: Match, place: MatchPlace): string[] {
  return place.processes ? cgroupConditions(cgroups) : []
}

/**
 * What a rule cannot say as one condition: "in one of these cgroups, with one of these marks". Each list is a rule of its own;
 * together they say "or". One empty list when nothing of the kind is asked.
 */
export function matchAlternatives({ cgroups, fwmarks }: Match, place: MatchPlace): string[][] {
  const inCgroups = place.processes ? cgroupConditions(cgroups) : []
  const withMarks = [...grouped(fwmarks, ({ mask }) => mask)].map(
    ([mask, marks]) => `meta mark & ${hex(mask)} ${inlineSet(marks.map(({ value }) => hex(value)))}`,
  )
  const cgroupChoices = inCgroups.length === 0 ? [[]] : inCgroups.map((condition) => [condition])
  const markChoices = withMarks.length === 0 ? [[]] : withMarks.map((condition) => [condition])
  return cgroupChoices.flatMap((cgroup) => markChoices.map((mark) => [...cgroup, ...mark]))
}

function cgroupConditions(cgroups: readonly string[]): string[] {
  return [...grouped(cgroups, levelOf)].map(
    ([level, paths]) => `socket cgroupv2 level ${level} ${inlineSet(paths.map((path) => `"${path}"`))}`,
  )
}

/** How many folders below the root of the hierarchy a cgroup lies. */
function levelOf(cgroup: string): number {
  return cgroup.split('/').length
}

function addressLists(match: Match) {
  return [
    ['saddr', 'sources', match.sources],
    ['daddr', 'destinations', match.destinations],
  ] as const
}

function coversAll(prefixes: readonly Prefix[]): boolean {
  return prefixes.some((prefix) => prefix.length === 0)
}

export function addressKeyword(family: Family): 'ip' | 'ip6' {
  return family === 4 ? 'ip' : 'ip6'
}

/** Without those that lie within another one: the kernel refuses overlapping intervals in one set. Sorted by address. */
export function withoutContained(prefixes: readonly Prefix[]): Prefix[] {
  const sorted = prefixes
    .map((prefix) => ({ prefix, key: Buffer.from(addressBytes(prefix.address)) }))
    .sort((a, b) => a.key.compare(b.key) || a.prefix.length - b.prefix.length)
  const kept: Prefix[] = []
  for (const { prefix } of sorted) {
    const last = kept.at(-1)
    if (last === undefined || !prefixContains(last, prefix.address)) kept.push(prefix)
  }
  return kept
}

/** Sorted, with overlapping and adjacent ranges joined. */
export function mergedRanges(ranges: readonly PortRange[]): PortRange[] {
  const merged: PortRange[] = []
  for (const range of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1)
    if (last !== undefined && range.from <= last.to + 1) {
      merged[merged.length - 1] = { from: last.from, to: Math.max(last.to, range.to) }
    } else {
      merged.push(range)
    }
  }
  return merged
}

/** `10.0.4.2`, or `10.0.4.0/24`. */
export function prefixText(prefix: Prefix): string {
  return prefix.length === (prefix.family === 4 ? 32 : 128) ? prefix.address : formatPrefix(prefix)
}

function inlineSet(elements: readonly string[]): string {
  return elements.length === 1 ? elements[0]! : `{ ${elements.join(', ')} }`
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size))
}

function grouped<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [item])
    else group.push(item)
  }
  return groups
}
