import type { Match } from '../config/types.ts'
import { addressBytes, type Family } from '../net/address.ts'
import { isAllPorts, type NumberRange, type PortRange } from '../net/ports.ts'
import { formatPrefix, networkOf, type Prefix } from '../net/prefix.ts'
import { mergedRanges, withoutContained } from './nft-match.ts'
import { hex } from './policy-routing.ts'

const MULTIPORT_SLOTS = 15 // of xt_multiport, where a range takes two (XT_MULTI_PORTS)

/** One condition on a packet, with its alternatives as a program of the iptables family writes them. */
export type Stage =
  /** One of them must hold. */
  | { readonly kind: 'any'; readonly of: readonly string[] }
  /** None of them may hold. */
  | { readonly kind: 'none'; readonly of: readonly string[] }
  /** A list of prefixes that the address must be in, or must not be in. Sorted; none lies within another. */
  | {
      readonly kind: 'in' | 'not-in'
      readonly field: '-s' | '-d'
      readonly family: Family
      readonly prefixes: readonly Prefix[]
    }

/** How one program writes conditions; undefined for what it cannot ask. */
export interface Dialect {
  readonly inputInterface: string
  readonly outputInterface: string
  /** At most `perRule` slots of ports in one rule, as alternatives; `side`: of the packet's source or destination. */
  ports(side: 'source' | 'destination', ranges: readonly PortRange[], family: Family): string[]
  address(field: '-s' | '-d', prefix: Prefix): string
  fwmark(value: number, mask: number): string
  uid(range: NumberRange): string | undefined
  cgroup(path: string): string | undefined
}

export const IPTABLES: Dialect = {
  inputInterface: '-i',
  outputInterface: '-o',
  ports: (side, ranges) =>
    multiportChunks(ranges).map((chunk) => `-m multiport --${side === 'source' ? 's' : 'd'}ports ${chunk.join(',')}`),
  address: (field, prefix) => `${field} ${formatPrefix(prefix)}`,
  fwmark: (value, mask) => `-m mark --mark ${hex(value)}/${hex(mask)}`,
  uid: ({ from, to }) => `-m owner --uid-owner ${from === to ? from : `${from}-${to}`}`,
  cgroup: (path) => `-m cgroup --path "${path}"`,
}

/** ebtables(8) knows no lists of ports. */
export const EBTABLES: Dialect = {
  inputInterface: '-i',
  outputInterface: '-o',
  ports: (side, ranges, family) =>
    ranges.map((range) => `--${ipWord(family)}-${side === 'source' ? 's' : 'd'}port ${colonRange(range)}`),
  address: (field, prefix) => `--${ipWord(prefix.family)}-${field === '-s' ? 'src' : 'dst'} ${formatPrefix(prefix)}`,
  fwmark: (value, mask) => `--mark ${hex(value)}/${hex(mask)}`,
  uid: () => undefined,
  cgroup: () => undefined,
}

export interface StageOptions {
  readonly dialect: Dialect
  /** Which interface the match's names mean here; undefined where none is known. */
  readonly interfaces: 'input' | 'output' | undefined
  /** Packets of the other direction, from server to client: addresses and ports change sides. */
  readonly answers?: boolean
  /** Whether the sending process is known. */
  readonly processes?: boolean
}

/**
 * The conditions of a match and its exclusions for packets of one family; undefined when no such packet can fulfil them.
 * The cheap ones come first.
 */
export function matchStages(
  match: Match,
  exclude: Match,
  family: Family,
  options: StageOptions,
): readonly Stage[] | undefined {
  const wanted = matchAlternatives(match, family, options)
  const unwanted = matchAlternatives(exclude, family, options)
  const stages: Stage[] = []
  for (const list of wanted.flags) if (list.length > 0) stages.push({ kind: 'any', of: list })
  for (const list of unwanted.flags) if (list.length > 0) stages.push({ kind: 'none', of: list })
  if (exclude.ports.length > 0 && isAllPorts(exclude.ports)) return undefined
  for (const { field, prefixes } of unwanted.addresses) {
    if (prefixes.length === 0) continue
    const ofFamily = withoutContained(prefixes.filter((prefix) => prefix.family === family))
    if (ofFamily.length === 0) continue
    if (ofFamily.some(({ length }) => length === 0)) return undefined
    stages.push({ kind: 'not-in', field, family, prefixes: ofFamily })
  }
  for (const { field, prefixes } of wanted.addresses) {
    if (prefixes.length === 0) continue
    const ofFamily = withoutContained(prefixes.filter((prefix) => prefix.family === family))
    if (ofFamily.length === 0) return undefined
    if (ofFamily.some(({ length }) => length === 0)) continue
    stages.push({ kind: 'in', field, family, prefixes: ofFamily })
  }
  return stages
}

function matchAlternatives(match: Match, family: Family, { dialect, interfaces, answers, processes }: StageOptions) {
  const word = interfaces === 'output' ? dialect.outputInterface : dialect.inputInterface
  const ports = isAllPorts(match.ports) ? [] : mergedRanges(match.ports)
  const ofProcesses = processes === true ? match : { uids: [], cgroups: [] }
  return {
    flags: [
      interfaces === undefined ? [] : match.interfaces.map((name) => `${word} ${interfacePattern(name)}`),
      ports.length === 0 ? [] : dialect.ports(answers === true ? 'source' : 'destination', ports, family),
      match.fwmarks.map(({ value, mask }) => dialect.fwmark(value, mask)),
      ofProcesses.uids.map(dialect.uid).filter((text) => text !== undefined),
      ofProcesses.cgroups.map(dialect.cgroup).filter((text) => text !== undefined),
    ],
    addresses: [
      { field: answers === true ? '-d' : '-s', prefixes: match.sources },
      { field: answers === true ? '-s' : '-d', prefixes: match.destinations },
    ] as const,
  }
}

/** A group of prefixes that all lie within one: what a chain of its own is made for. */
export interface PrefixGroup {
  readonly within: Prefix
  readonly prefixes: readonly Prefix[]
}

/**
 * Splits a long list so that a packet is compared with few of them: those shorter than `length` bits stay single, the
 * others are grouped by their first `length` bits.
 */
export function groupPrefixes(
  prefixes: readonly Prefix[],
  length: number,
): { single: Prefix[]; groups: PrefixGroup[] } {
  const single: Prefix[] = []
  const groups = new Map<string, { within: Prefix; prefixes: Prefix[] }>()
  for (const prefix of prefixes) {
    if (prefix.length <= length) {
      single.push(prefix)
      continue
    }
    const address = networkOf(prefix.address, length)
    const group = groups.get(address) ?? { within: { ...prefix, address, length }, prefixes: [] }
    group.prefixes.push(prefix)
    groups.set(address, group)
  }
  return { single, groups: [...groups.values()] }
}

/** How many first bits all prefixes of a list share: where splitting it begins to help. */
export function sharedBits(prefixes: readonly Prefix[]): number {
  const [first, ...others] = prefixes
  if (first === undefined) return 0
  const bytes = addressBytes(first.address)
  let shared = Math.min(...prefixes.map(({ length }) => length))
  for (const { address } of others) {
    const other = addressBytes(address)
    const at = other.findIndex((byte, i) => byte !== bytes[i])
    if (at >= 0) shared = Math.min(shared, at * 8 + Math.clz32(other[at]! ^ bytes[at]!) - 24)
  }
  return shared
}

/** iptables: `ppp+` for whatever begins with ppp. */
function interfacePattern(name: string): string {
  return name.endsWith('*') ? `${name.slice(0, -1)}+` : name
}

function multiportChunks(ranges: readonly PortRange[]): string[][] {
  const chunks: string[][] = []
  let free = 0
  for (const range of ranges) {
    const slots = range.from === range.to ? 1 : 2
    if (slots > free) {
      chunks.push([])
      free = MULTIPORT_SLOTS
    }
    chunks.at(-1)!.push(colonRange(range))
    free -= slots
  }
  return chunks
}

function colonRange({ from, to }: NumberRange): string {
  return from === to ? `${from}` : `${from}:${to}`
}

function ipWord(family: Family): 'ip' | 'ip6' {
  return family === 4 ? 'ip' : 'ip6'
}
