import type { ListenerConfig, Protocol, RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { formatPrefix, type Prefix } from '../net/prefix.ts'
import type { Interception } from './interception.ts'
import { IPTABLES, matchStages, type StageOptions } from './iptables-match.ts'
import type { ChainBook, ChainProgram, Table } from './iptables-text.ts'
import { commentText } from './nft-text.ts'
import { hex, localMark } from './policy-routing.ts'

export const SYN = '-p tcp --tcp-flags SYN,ACK SYN'
export const NOT_SYN = '-p tcp ! --tcp-flags SYN,ACK SYN'
export const ADDRESSED_HERE = '-m addrtype --dst-type LOCAL'
const NOT_ADDRESSED_HERE = '-m addrtype ! --dst-type LOCAL'

export const FORWARDED: StageOptions = { dialect: IPTABLES, interfaces: 'input' }
export const LOCAL: StageOptions = { dialect: IPTABLES, interfaces: 'output', processes: true }

/** A chain in which listeners are asked for packets of one family. */
export interface ListenerChain {
  readonly table: Table
  readonly suffix: string
  readonly family: Family
  /** FORWARDED for what was received, LOCAL for what processes of this host send. */
  readonly options: StageOptions
  /** What becomes of packets addressed to this host that no listener wants; undefined where they have left before. */
  readonly addressedHere: string | undefined
}

export function programOf(family: Family): ChainProgram {
  return family === 4 ? 'iptables-restore' : 'ip6tables-restore'
}

/** Listeners in their order, those that also take what is addressed to this host before the others. */
export function layListeners(
  book: ChainBook,
  chain: ListenerChain,
  rules: RulesConfig,
  interceptions: readonly Interception[],
  final: (interception: Interception) => string,
): void {
  const { table, suffix, family, options, addressedHere } = chain
  neverIntercepted(book, table, suffix, family)
  const here = interceptions.filter(({ listener }) => listener.addressedHere)
  const elsewhere = interceptions.filter(({ listener }) => !listener.addressedHere)
  const lay = (one: Interception) => layRules(book, table, suffix, one, options, protocolOf(rules, one), final(one))
  for (const interception of here) lay(interception)
  if (elsewhere.length > 0 && addressedHere !== undefined) book.add(table, suffix, ADDRESSED_HERE, addressedHere)
  for (const interception of elsewhere) lay(interception)
}

/** Of what a bridge receives, only the frames that our chains of ebtables brought up are a listener's: their mark tells. */
function protocolOf(rules: RulesConfig, { path, protocol }: Interception): string {
  return path === 'bridged' ? `-p ${protocol} ${markIs(rules, localMark(rules))}` : `-p ${protocol}`
}

/** The rules of one listener; none when no packet of its family can fulfil its conditions. */
export function layRules(
  book: ChainBook,
  table: Table,
  from: string,
  { listener, family, path, bridges }: Interception,
  options: StageOptions,
  protocol: string,
  final: string,
): void {
  // a frame that was brought up comes in on the bridge, whichever port it was
  const interfaces = path === 'bridged' ? bridges.map(({ name }) => name) : listener.match.interfaces
  const exclude = path === 'bridged' ? { ...listener.exclude, interfaces: [] } : listener.exclude
  const stages = matchStages({ ...listener.match, interfaces }, exclude, family, options)
  if (stages !== undefined) book.ladder(table, from, { protocol, comment: commentOf(listener), final }, stages)
}

/** Addresses that no router may pass on, and those that reach many hosts. */
export function neverIntercepted(book: ChainBook, table: Table, suffix: string, family: Family): void {
  const types = family === 4 ? ['BROADCAST', 'ANYCAST', 'MULTICAST'] : ['ANYCAST', 'MULTICAST']
  book.add(table, suffix, `-m addrtype --dst-type ${types.join(',')} -j RETURN`)
  for (const prefix of neverForwarded(family)) book.add(table, suffix, `-d ${prefix} -j RETURN`)
}

/**
 * Destinations that the kernel forwards by itself: one rule for each, whose counter is of what went there. `letBy`: what becomes of
 * such a packet. What is addressed to this host is none of it.
 */
export function layBypass(
  book: ChainBook,
  table: Table,
  suffix: string,
  protocol: Protocol,
  prefixes: readonly Prefix[],
  letBy = '-j RETURN',
): void {
  for (const prefix of prefixes) {
    const comment = `-m comment --comment "${bypassComment(protocol, prefix)}"`
    book.add(table, suffix, `-p ${protocol}`, NOT_ADDRESSED_HERE, `-d ${formatPrefix(prefix)}`, comment, letBy)
  }
}

/** What is bypassed never leaves a bridge: ebtables is not told to bring it up. */
export function isRouted({ path }: Interception): boolean {
  return path !== 'bridged'
}

/** `bypass tcp 10.0.0.0/8`. */
export function bypassComment(protocol: Protocol, prefix: Prefix): string {
  return `bypass ${protocol} ${formatPrefix(prefix)}`
}

/** The same by prefix alone. */
export function neverForwarded(family: Family): readonly string[] {
  return family === 4
    ? ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4']
    : ['::', '::1', 'fe80::/10', 'ff00::/8']
}

/** What is done with a received packet that a tproxy or mark listener takes. */
export function toListener(book: ChainBook, rules: RulesConfig, interception: Interception): string {
  if (interception.listener.intercept === 'tproxy') return tproxyTo(interception, rules.interceptMark, rules)
  return `-g ${book.chain('take')}`
}

export function tproxyTo({ to }: Interception, mark: number, rules: RulesConfig): string {
  return `-j TPROXY --on-port ${to.port} --on-ip ${to.address} --tproxy-mark ${hex(mark)}/${hex(rules.markMask)}`
}

export function markIs(rules: RulesConfig, mark: number): string {
  return `-m mark --mark ${hex(mark)}/${hex(rules.markMask)}`
}

export function markIsNot(rules: RulesConfig, mark: number): string {
  return `-m mark ! --mark ${hex(mark)}/${hex(rules.markMask)}`
}

/** The target that sets our bits of a packet's mark; the other bits belong to others. */
export function setMark(rules: RulesConfig, mark: number): string {
  return `-j MARK --set-xmark ${hex(mark)}/${hex(rules.markMask)}`
}

/** The same for the mark of a connection. */
export function setConnmark(rules: RulesConfig, mark: number): string {
  return `-j CONNMARK --set-xmark ${hex(mark)}/${hex(rules.markMask)}`
}

const LABELS = 128 // of a connection (XT_CONNLABEL_MAXBIT)

/**
 * On lo nobody knows any more which process sent a packet: where there are several listeners, a label of its connection
 * tells which one took it. From the last one down: labels with names are counted from the first. `local`: all of one protocol.
 */
export function labelOf(local: readonly Interception[], i: number): string {
  return local.length === 1 ? '' : `-m connlabel --label ${LABELS - 1 - i}`
}

/** Notes with the label which of them took the packet's connection, and goes on. */
export function noteLabel(local: readonly Interception[], one: Interception, onwards: string): string {
  const label = labelOf(local, local.indexOf(one))
  return label === '' ? onwards : `${label} --set ${onwards}`
}

export function commentOf(listener: ListenerConfig): string {
  return `-m comment --comment "listener ${commentText(listener.name)}"`
}
