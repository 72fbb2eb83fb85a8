import { createHash } from 'node:crypto'
import type { ListenerConfig, Match, RulesConfig } from '../config/types.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { addressKeyword, interfaceExpression, matchConditions, NamedSets, portExpression } from './nft-match.ts'
import { hex } from './policy-routing.ts'

/** The packets of one family that one listener takes, and the socket address they go to. */
export interface Interception {
  readonly listener: ListenerConfig
  readonly family: Family
  readonly to: Endpoint
}

const NOT_SYN = 'tcp flags & (syn|ack) != syn'
const SYN = 'tcp flags & (syn|ack) == syn'
const OURS = 'socket transparent 1 socket wildcard 0'
const COMMENT_LENGTH = 100 // nft takes 128 bytes at most

/** Every table of ours has a comment that begins like this, followed by a digest of the table's text. */
export const TABLE_COMMENT = 'limpid'

/** The nft table that brings packets to listeners. With no interceptions it only diverts to transparent sockets. */
export function nftText(rules: RulesConfig, interceptions: readonly Interception[]): string {
  const sets = new NamedSets()
  const writer = new Listeners(sets, ({ family, to }) => [
    `tproxy ${addressKeyword(family)} to ${formatEndpoint(to)} meta mark set ${markIn(rules)} counter accept`,
  ])
  const anywhere = interceptions.filter(({ listener }) => listener.interceptLocal)
  const elsewhere = interceptions.filter(({ listener }) => !listener.interceptLocal)
  const chain = [
    'chain prerouting {',
    '\ttype filter hook prerouting priority mangle; policy accept;',
    '',
    '\tiifname "lo" return',
    '\tmeta l4proto != tcp return',
    '',
    "\t# Limpid's own packets",
    `\tmeta mark & ${hex(rules.markMask)} == ${hex(rules.bypassMark)} return`,
    '',
    '\t# packets of flows that have a transparent socket here; a new SYN may find the old one in TIME_WAIT, hence not SYNs',
    `\t${NOT_SYN} ${OURS} goto divert`,
    '',
    ...indent(neverIntercepted()),
    ...indent(writer.rules(anywhere)),
    '',
    '\t# addressed to this host',
    '\tfib daddr type local return',
    ...indent(writer.rules(elsewhere)),
    '',
    '\t# new flows to a transparent socket that listens on an address of somebody else',
    `\t${SYN} ${OURS} goto divert`,
    '}',
    '',
    'chain divert {',
    `\tmeta mark set ${markIn(rules)} counter accept`,
    '}',
    ...inputChain(rules, interceptions),
  ]
  return table(rules.nftTable, 'Brings intercepted TCP flows to their listeners.', [
    ...sets.lines(),
    ...writer.chains(),
    ...chain,
  ])
}

/** The nft table that drops what `closed` listeners should have taken but did not; undefined when all are `open`. */
export function guardText(rules: RulesConfig, interceptions: readonly Interception[]): string | undefined {
  const closed = interceptions.filter(({ listener }) => listener.onDown === 'closed')
  if (closed.length === 0) return undefined
  const sets = new NamedSets()
  // answers to this host's own connections are addressed to it as well, so only new flows can be told apart
  const writer = new Listeners(sets, ({ listener }) =>
    listener.interceptLocal
      ? ['fib daddr type != local counter drop', `${SYN} counter drop`]
      : ['fib daddr type != local counter drop'],
  )
  const chain = [
    'chain prerouting {',
    '\ttype filter hook prerouting priority mangle + 1; policy accept;',
    '',
    '\tiifname "lo" return',
    '\tmeta l4proto != tcp return',
    `\tmeta mark & ${hex(rules.markMask)} != 0 return`,
    '',
    ...indent(neverIntercepted()),
    ...indent(writer.rules(closed)),
    '}',
  ]
  return table(guardTable(rules), 'Drops what closed listeners did not take, also while Limpid is down.', [
    ...sets.lines(),
    ...writer.chains(),
    ...chain,
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

/** Writes the rules of listeners: straight into a chain, or as a chain of their own when they have exclusions. */
class Listeners {
  readonly #sets: NamedSets
  /** What to do with a packet of the interception that matches, as the ends of one or more rules. */
  readonly #statements: (interception: Interception) => readonly string[]
  readonly #chains: string[] = []
  readonly #chainNames = new Set<string>()

  constructor(sets: NamedSets, statements: (interception: Interception) => readonly string[]) {
    this.#sets = sets
    this.#statements = statements
  }

  rules(interceptions: readonly Interception[]): string[] {
    return [...new Set(interceptions.map(({ listener }) => listener))].flatMap((listener) => {
      const ofListener = interceptions.filter((interception) => interception.listener === listener)
      const rules = ofListener.flatMap((interception) => this.#intercept(interception))
      const exclusions = ofListener.flatMap(({ family }, i) => this.#exclude(listener, family, i === 0))
      const heading = ['', `# listener ${commentText(listener.name)}`]
      if (exclusions.length === 0) return [...heading, ...rules]
      const chain = this.#uniqueName(setName(listener))
      this.#chains.push(`chain ${chain} {`, ...indent([...exclusions, ...rules]), '}', '')
      return [...heading, `jump ${chain}`]
    })
  }

  chains(): string[] {
    return this.#chains
  }

  #intercept(interception: Interception): string[] {
    const { listener, family } = interception
    const conditions = matchConditions(listener.match, family, setName(listener), this.#sets)
    if (conditions === undefined) return []
    const hasFamily = conditions.some((condition) => /^ip6? /.test(condition))
    const hasPorts = conditions.some((condition) => condition.startsWith('tcp '))
    if (!hasFamily) conditions.unshift(`meta nfproto ipv${family}`)
    const protocol = hasPorts ? [] : ['meta l4proto tcp'] // nft wants to see it in each rule with tproxy
    const comment = `comment "listener ${commentText(listener.name)}"`
    return this.#statements(interception).map((end) => [...conditions, ...protocol, end, comment].join(' '))
  }

  /**
   * Each list of `exclude` excludes by itself. The packets back from the server come this way too when the listener
   * takes from any interface; they are known by the same list with source and destination exchanged.
   */
  #exclude(listener: ListenerConfig, family: Family, first: boolean): string[] {
    const { exclude } = listener
    const name = `${setName(listener)}-not`
    const alone = (part: Partial<Match>) =>
      matchConditions({ interfaces: [], sources: [], destinations: [], ports: [], ...part }, family, name, this.#sets)
    const rules: string[] = []
    if (exclude.interfaces.length > 0 && first) {
      const names = interfaceExpression(exclude.interfaces)
      rules.push(`iifname ${names} return`, `${NOT_SYN} fib daddr oifname ${names} return`)
    }
    for (const key of ['sources', 'destinations'] as const) {
      const conditions = exclude[key].length === 0 ? undefined : alone({ [key]: exclude[key] })
      if (conditions === undefined) continue
      const there = [...conditions, ...(conditions.length === 0 ? [`meta nfproto ipv${family}`] : [])].join(' ')
      const back = there.replace(/ ([sd])addr /, (_, side) => (side === 's' ? ' daddr ' : ' saddr '))
      rules.push(`${there} return`, `${NOT_SYN} ${back} return`)
    }
    if (exclude.ports.length > 0 && first) {
      const ports = portExpression(exclude.ports)
      rules.push(
        ...(ports === undefined ? ['return'] : [`tcp dport ${ports} return`, `${NOT_SYN} tcp sport ${ports} return`]),
      )
    }
    return rules
  }

  #uniqueName(name: string): string {
    let unique = name
    for (let i = 2; this.#chainNames.has(unique); i++) unique = `${name}-${i}`
    this.#chainNames.add(unique)
    return unique
  }
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

/** A listener's name as a name of nft: letters, digits and dashes, never one of our own chains. */
function setName(listener: ListenerConfig): string {
  return `listener-${listener.name.replaceAll(/[^A-Za-z0-9]+/g, '-')}`
}

function commentText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]|["\\]/g, '?').slice(0, COMMENT_LENGTH)
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => (line === '' ? '' : `\t${line}`))
}
