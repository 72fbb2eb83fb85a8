import { createHash } from 'node:crypto'
import type { ListenerConfig, Protocol, RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { addressKeyword } from './nft-match.ts'
import { hex, localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

export const SYN = 'tcp flags & (syn|ack) == syn'
export const NOT_SYN = 'tcp flags & (syn|ack) != syn'

/** Every table of ours has a comment that begins like this, followed by a digest of the table's text. */
export const TABLE_COMMENT = 'limpid'

const COMMENT_LENGTH = 100 // nft takes 128 bytes at most

/** `TCP`, `UDP` or `TCP and UDP`. */
export function protocolWords(used: readonly { readonly protocol: Protocol }[]): string {
  const words = new Set(used.map(({ protocol }) => protocol.toUpperCase()))
  return [...words].sort().join(' and ')
}

/** A table as nft reads it: its comment holds a digest of its text. */
export function nftScript(family: 'inet' | 'bridge', table: string, purpose: string, body: readonly string[]): Script {
  const name = `${family} ${table}`
  const lines = indent(withoutTrailingBlank(body)).join('\n')
  const digest = createHash('sha256').update(`${name}\n${lines}`).digest('hex').slice(0, 12)
  return {
    program: 'nft',
    name,
    text: `# ${purpose}\ntable ${name} {\n\tcomment "${TABLE_COMMENT} ${digest}"\n\n${lines}\n}\n`,
  }
}

/** A chain with its lines, and an empty line behind it; nothing when there are none. `head`: type, hook and priority. */
export function chain(name: string, head: string | undefined, lines: readonly string[]): string[] {
  if (lines.length === 0) return []
  const type = head === undefined ? [] : [`\ttype ${head}; policy accept;`, '']
  return [`chain ${name} {`, ...type, ...indent(trimBlank(lines)), '}', '']
}

/** What both ends call a flow: client's address and port, then where it dialled. Swapped for the other direction. */
export function flowTuple(family: Family, direction: 'sent' | 'answered' = 'sent', protocol: Protocol = 'tcp'): string {
  const ip = addressKeyword(family)
  const from = `${ip} saddr . ${protocol} sport`
  const to = `${ip} daddr . ${protocol} dport`
  return direction === 'sent' ? `${from} . ${to}` : `${to} . ${from}`
}

/** The same of a datagram. */
export function datagramTuple(family: Family, direction: 'sent' | 'answered' = 'sent'): string {
  return flowTuple(family, direction, 'udp')
}

/** A set of flows that fills itself. At `size` nothing more is noted. */
export function flowSet(name: string, family: Family, timeout: string, size: number): string[] {
  return [
    `set ${name} {`,
    `\ttype ipv${family}_addr . inet_service . ipv${family}_addr . inet_service`,
    '\tflags dynamic,timeout',
    `\ttimeout ${timeout}`,
    `\tsize ${size}`,
    '}',
    '',
  ]
}

/** Addresses that no router may pass on, and those that reach many hosts. */
export function neverIntercepted(): string[] {
  return [
    '# addresses that stand for no single other host',
    'fib daddr type { broadcast, anycast, multicast } return',
    ...neverForwarded(),
  ]
}

/** The same without `fib`, which the bridge family lacks. */
export function neverForwarded(): string[] {
  return [
    'ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4 } return',
    'ip6 daddr { ::, ::1, fe80::/10, ff00::/8 } return',
  ]
}

/** The packet's mark with our bits set to one of our marks; the other bits belong to others. */
export function markIn(rules: RulesConfig, mark: number): string {
  return `(meta mark & ${hex(~rules.markMask)}) | ${hex(mark)}`
}

/** Whether our bits of the packet's mark are one of our marks. */
export function markIs(rules: RulesConfig, operator: '==' | '!=', mark: number): string {
  return `meta mark & ${hex(rules.markMask)} ${operator} ${hex(mark)}`
}

/** A frame that our bridge table brought up, by its mark. Others that a bridge receives are no listener's. */
export function isBroughtUp(rules: RulesConfig): string {
  return markIs(rules, '==', localMark(rules))
}

/** A listener's or forward's name as the beginning of names of nft sets: letters, digits and dashes. */
export function setName(kind: 'listener' | 'forward', { name }: { readonly name: string }): string {
  return `${kind}-${name.replaceAll(/[^A-Za-z0-9]+/g, '-')}`
}

export function listenerComment(listener: ListenerConfig): string {
  return `comment "listener ${commentText(listener.name)}"`
}

export function commentText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]|["\\]/g, '?').slice(0, COMMENT_LENGTH)
}

export function indent(lines: readonly string[]): string[] {
  return lines.map((line) => (line === '' ? '' : `\t${line}`))
}

function withoutTrailingBlank(lines: readonly string[]): readonly string[] {
  return lines.at(-1) === '' ? lines.slice(0, -1) : lines
}

/** Without empty lines at its ends, and never two together. */
function trimBlank(lines: readonly string[]): string[] {
  const kept = lines.filter((line, i) => line !== '' || (i > 0 && lines[i - 1] !== ''))
  while (kept[0] === '') kept.shift()
  while (kept.at(-1) === '') kept.pop()
  return kept
}
