import { createHash } from 'node:crypto'
import type { ListenerConfig, RulesConfig } from '../config/types.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { addressKeyword, matchConditions, NamedSets, portExpression, withoutConditions } from './nft-match.ts'
import { hex } from './policy-routing.ts'

/** The packets of one family that one listener takes, and the socket address they go to. */
export interface Interception {
  readonly listener: ListenerConfig
  readonly family: Family
  readonly to: Endpoint
}

const SYN = 'tcp flags & (syn|ack) == syn'
const NOT_SYN = 'tcp flags & (syn|ack) != syn'
const COMMENT_LENGTH = 100 // nft takes 128 bytes at most
const BEGUN_SECONDS = 10 // a client's ACK follows our SYN-ACK within a round trip
const BEGUN_SIZE = 262_144 // 26 000 new flows/s; at 100 bytes each a SYN flood can pin 26 MB of kernel memory

/** Every table of ours has a comment that begins like this, followed by a digest of the table's text. */
export const TABLE_COMMENT = 'limpid'

/**
 * The nft table that brings packets to listeners. With no interceptions it only diverts to transparent sockets.
 *
 * A flow is taken by its SYN, and its other packets by the socket that came of it. So what is forwarded past us keeps
 * working: the answers of a connection made from the other side, flows older than the rules, and what is excluded. Under a
 * SYN flood the kernel keeps no socket before the handshake's last packet (SYN cookies); that one is known by a set of
 * the flows that have just begun.
 */
export function nftText(rules: RulesConfig, interceptions: readonly Interception[]): string {
  const sets = new NamedSets()
  const anywhere = interceptions.filter(({ listener }) => listener.interceptLocal)
  const elsewhere = interceptions.filter(({ listener }) => !listener.interceptLocal)
  const end = ({ family, to }: Interception) =>
    `tproxy ${addressKeyword(family)} to ${formatEndpoint(to)} counter goto take`
  const families = [...new Set(interceptions.map(({ family }) => family))].sort()
  const listenerRules = [
    ...listenerLines(anywhere, sets, end),
    '',
    '# addressed to this host',
    'fib daddr type local return',
    ...listenerLines(elsewhere, sets, end),
  ]
  const judge = [
    '',
    '# of what has no socket, only the beginning of a flow is taken',
    ...families.map((family) => `${NOT_SYN} ${flowTuple(family)} != @begun${family} return`),
    '',
    ...neverIntercepted(),
    ...listenerRules,
  ]
  return table(rules.nftTable, 'Brings intercepted TCP flows to their listeners.', [
    ...sets.lines(),
    ...families.flatMap(begunSet),
    ...(families.length === 0 ? [] : takeChain(rules, families)),
    'chain divert {',
    '\t# a socket that listens on all addresses is not meant for those of somebody else',
    '\tsocket wildcard 1 return',
    `\tmeta mark set ${markIn(rules)} counter accept`,
    '}',
    '',
    'chain prerouting {',
    '\ttype filter hook prerouting priority mangle; policy accept;',
    '',
    '\tiifname "lo" return',
    '\tmeta l4proto != tcp return',
    '',
    "\t# Limpid's own packets",
    `\tmeta mark & ${hex(rules.markMask)} == ${hex(rules.bypassMark)} return`,
    '',
    '\t# packets of flows that have a socket here; a SYN may find that of an older flow, so it comes last',
    `\t${NOT_SYN} socket transparent 1 jump divert`,
    ...(interceptions.length === 0 ? [] : indent(judge)),
    '',
    '\t# new flows to a socket that listens on an address of somebody else',
    `\t${SYN} socket transparent 1 jump divert`,
    '}',
    ...inputChain(rules, interceptions),
  ])
}

/** The nft table that drops what `closed` listeners should have taken but did not; undefined when all are `open`. */
export function guardText(rules: RulesConfig, interceptions: readonly Interception[]): string | undefined {
  const closed = interceptions.filter(({ listener }) => listener.onDown === 'closed')
  if (closed.length === 0) return undefined
  const sets = new NamedSets()
  const listenerRules = listenerLines(closed, sets, ({ listener }) =>
    listener.interceptLocal ? 'counter drop' : 'fib daddr type != local counter drop',
  )
  return table(guardTable(rules), 'Drops what closed listeners did not take, also while Limpid is down.', [
    ...sets.lines(),
    'chain prerouting {',
    '\ttype filter hook prerouting priority mangle + 1; policy accept;',
    '',
    '\tiifname "lo" return',
    `\tmeta mark & ${hex(rules.markMask)} != 0 return`,
    '',
    '\t# no flow comes to be without its SYN',
    '\tmeta l4proto != tcp return',
    `\t${NOT_SYN} return`,
    '',
    ...indent(neverIntercepted()),
    ...indent(listenerRules),
    '}',
  ])
}

export function guardTable(rules: RulesConfig): string {
  return `${rules.nftTable}-guard`
}

/** The same table, but gone when the process that adds it closes its netlink socket (Linux 5.12, NFT_TABLE_F_OWNER). */
export function ownedText(text: string): string {
  return text.replace('{\n', '{\n\tflags owner\n')
}

/** The digest within the comment of a table of ours: in a text of this file, or in what `nft list table` says. */
export function tableDigest(text: string): string | undefined {
  return new RegExp(`^\\tcomment "${TABLE_COMMENT} ([0-9a-f]+)"`, 'm').exec(text)?.[1]
}

/** The rules of listeners: one for each family, with a heading. `end`: what to do with a packet that matches. */
function listenerLines(
  interceptions: readonly Interception[],
  sets: NamedSets,
  end: (interception: Interception) => string,
): string[] {
  let previous: ListenerConfig | undefined
  return interceptions.flatMap((interception) => {
    const { listener } = interception
    const heading = listener === previous ? [] : ['', `# listener ${commentText(listener.name)}`]
    previous = listener
    const conditions = listenerConditions(interception, sets)
    if (conditions === undefined) return heading
    return [
      ...heading,
      `${[...conditions, end(interception)].join(' ')} comment "listener ${commentText(listener.name)}"`,
    ]
  })
}

/** Undefined when no packet of the family can fulfil them. */
function listenerConditions({ listener, family }: Interception, sets: NamedSets): string[] | undefined {
  const wanted = matchConditions(listener.match, family, setName(listener), sets)
  const unwanted = withoutConditions(listener.exclude, family, `${setName(listener)}-not`, sets)
  if (wanted === undefined || unwanted === undefined) return undefined
  const conditions = [...wanted, ...unwanted]
  if (!conditions.some((condition) => /^ip6? /.test(condition))) conditions.unshift(`meta nfproto ipv${family}`)
  // nft wants to see it in each rule with tproxy
  if (!conditions.some((condition) => condition.startsWith('tcp '))) conditions.push('meta l4proto tcp')
  return conditions
}

/** Marks a packet that tproxy has given to a listener, so that it is routed here, and notes the flow. */
function takeChain(rules: RulesConfig, families: readonly Family[]): string[] {
  return [
    'chain take {',
    ...families.map((family) => `\t${SYN} update @begun${family} { ${flowTuple(family)} }`),
    `\tmeta mark set ${markIn(rules)} accept`,
    '}',
    '',
  ]
}

function begunSet(family: Family): string[] {
  return [
    `set begun${family} {`,
    `\ttype ipv${family}_addr . inet_service . ipv${family}_addr . inet_service`,
    '\tflags dynamic,timeout',
    `\ttimeout ${BEGUN_SECONDS}s`,
    `\tsize ${BEGUN_SIZE}`,
    '}',
    '',
  ]
}

function flowTuple(family: Family): string {
  const ip = addressKeyword(family)
  return `${ip} saddr . tcp sport . ${ip} daddr . tcp dport`
}

/** Addresses that no router may pass on, and those that reach many hosts. */
function neverIntercepted(): string[] {
  return [
    '# addresses that stand for no single other host',
    'fib daddr type { broadcast, anycast, multicast } return',
    'ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4 } return',
    'ip6 daddr { ::, ::1, fe80::/10, ff00::/8 } return',
  ]
}

/** A listener that others can dial must not be dialled: it would find itself as the destination. */
function inputChain(rules: RulesConfig, interceptions: readonly Interception[]): string[] {
  const open = interceptions.filter(({ listener }) =>
    listener.listen.some(({ address }) => address !== '::1' && !address.startsWith('127.')),
  )
  const ports = portExpression(open.map(({ to }) => ({ from: to.port, to: to.port })))
  if (ports === undefined) return []
  return [
    '',
    'chain input {',
    '\ttype filter hook input priority filter; policy accept;',
    '',
    '\t# a connection to the listener itself, not intercepted',
    `\tiifname != "lo" tcp dport ${ports} meta mark & ${hex(rules.markMask)} != ${hex(rules.interceptMark)} counter reject with tcp reset`,
    '}',
  ]
}

/** The packet's mark with our bits set to the intercept mark; the other bits belong to others. */
function markIn(rules: RulesConfig): string {
  return `(meta mark & ${hex(~rules.markMask)}) | ${hex(rules.interceptMark)}`
}

function table(name: string, purpose: string, body: readonly string[]): string {
  const lines = indent(body).join('\n')
  const digest = createHash('sha256').update(`${name}\n${lines}`).digest('hex').slice(0, 12)
  return `# ${purpose}\ntable inet ${name} {\n\tcomment "${TABLE_COMMENT} ${digest}"\n\n${lines}\n}\n`
}

/** A listener's name as the beginning of names of nft sets: letters, digits and dashes. */
function setName(listener: ListenerConfig): string {
  return `listener-${listener.name.replaceAll(/[^A-Za-z0-9]+/g, '-')}`
}

function commentText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]|["\\]/g, '?').slice(0, COMMENT_LENGTH)
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => (line === '' ? '' : `\t${line}`))
}
