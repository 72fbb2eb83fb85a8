import { MATCH_ANY } from '../config/defaults.ts'
import type { ForwardConfig, ListenerConfig, RulesConfig } from '../config/types.ts'
import { type Family, formatEndpoint, isLoopback } from '../net/address.ts'
import { formatPortRange } from '../net/ports.ts'
import { type Diverted, type Interception, isUntouched } from './interception.ts'
import { IPTABLES, matchStages, type StageOptions } from './iptables-match.ts'
import { ChainBook, type ChainProgram, chainPrefix, type Table } from './iptables-text.ts'
import { commentText } from './nft-text.ts'
import { CONNTRACK_ZONE, hex, localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

/** What the rules of iptables are written from. */
export interface ChainsInput {
  readonly rules: RulesConfig
  readonly interceptions: readonly Interception[]
  readonly forwards: readonly ForwardConfig[]
  /** Of which packets addressed to somebody else must come to sockets of ours. */
  readonly divert: readonly Diverted[]
}

export const SYN = '-p tcp --tcp-flags SYN,ACK SYN'
export const NOT_SYN = '-p tcp ! --tcp-flags SYN,ACK SYN'

const FORWARDED: StageOptions = { dialect: IPTABLES, interfaces: 'input' }
const LOCAL: StageOptions = { dialect: IPTABLES, interfaces: 'output', processes: true }
const RETURNED: StageOptions = { dialect: IPTABLES, interfaces: undefined } // on lo, where nobody knows the sender any more

/**
 * The chains of iptables and ip6tables that bring packets to listeners. None for a family in which nothing is to be done.
 *
 * As with nft, a flow is taken by its SYN, and its other packets by the socket that came of it. On the path `local` the kernel asks
 * nobody for a socket: there a connection's connmark tells. Nothing here knows a flow between SYN cookie and last packet of its
 * handshake; conntrack would, but these chains do not bring it to a host that goes without.
 */
export function iptablesScripts(input: ChainsInput): Script[] {
  return ([4, 6] as const).flatMap((family) => {
    const book = new ChainBook(programOf(family), chainPrefix(input.rules.nftTable))
    const interceptions = input.interceptions.filter((interception) => interception.family === family)
    const untouched = interceptions.filter(isUntouched)
    const rewritten = interceptions.filter((interception) => !isUntouched(interception))
    zoneChain(book, input.rules, rewritten)
    inputChain(book, input.rules, interceptions)
    natChains(book, input, family, rewritten)
    if (untouched.length > 0 || input.divert.some((diverted) => diverted.family === family))
      preroutingChain(book, input.rules, family, untouched)
    outputChain(book, input.rules, family, untouched)
    return book.isEmpty ? [] : [book.script('Brings intercepted TCP flows to their listeners.')]
  })
}

export function programOf(family: Family): ChainProgram {
  return family === 4 ? 'iptables-restore' : 'ip6tables-restore'
}

/** Diverts to sockets, gives new flows to tproxy listeners, and marks those of mark listeners. */
function preroutingChain(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
): void {
  const add = (...rule: string[]) => book.add('mangle', 'prerouting', ...rule)
  const onPath = (path: Interception['path']) => interceptions.filter((interception) => interception.path === path)
  const received = [...onPath('forwarded'), ...onPath('bridged')]
  book.jump('mangle', 'PREROUTING', '-p tcp', 'prerouting')
  const local = onPath('local')
  if (local.length > 0) {
    add('-i lo', markIs(rules, localMark(rules)), `-g ${book.chain('back')}`)
    for (const [i, interception] of local.entries()) {
      if (interception.listener.intercept !== 'tproxy') continue
      const { listener } = interception
      const label = labelOf(local, i)
      book.add('mangle', 'back', SYN, label, commentOf(listener), tproxyTo(interception, localMark(rules), rules))
    }
    book.add('mangle', 'back', '-j ACCEPT')
  }
  add('-i lo -j RETURN')
  add(markIs(rules, rules.bypassMark), '-j RETURN')
  add(NOT_SYN, '-m socket --transparent', `-g ${book.chain('take')}`)
  add(NOT_SYN, '-j RETURN')
  if (received.length > 0) {
    layListeners(book, 'mangle', 'prerouting', family, received, (interception) =>
      layRules(
        book,
        'mangle',
        'prerouting',
        interception,
        FORWARDED,
        receivedProtocol(rules, interception),
        interception.listener.intercept === 'tproxy'
          ? tproxyTo(interception, rules.interceptMark, rules)
          : `-g ${book.chain('take')}`,
      ),
    )
  }
  add('-m socket --transparent', `-g ${book.chain('take')}`)
  book.add('mangle', 'take', `-j MARK --set-xmark ${hex(rules.interceptMark)}/${hex(rules.markMask)}`)
  book.add('mangle', 'take', '-j ACCEPT')
}

/** Of what a bridge receives, only the frames that our chains of ebtables brought up are a listener's: their mark tells. */
function receivedProtocol(rules: RulesConfig, { path }: Interception): string {
  return path === 'bridged' ? `-p tcp ${markIs(rules, localMark(rules))}` : '-p tcp'
}

/** Marks what this host's processes send to where a tproxy or mark listener takes it: it is routed to lo and comes in again. */
function outputChain(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
): void {
  const local = interceptions.filter(({ path }) => path === 'local')
  if (local.length === 0) return
  const mark = `${hex(localMark(rules))}/${hex(rules.markMask)}`
  const add = (...rule: string[]) => book.add('mangle', 'output', ...rule)
  book.jump('mangle', 'OUTPUT', '-p tcp', 'output')
  add(markIsNot(rules, 0), '-j RETURN')
  add('-m addrtype --dst-type LOCAL -j RETURN')
  add(NOT_SYN, `-m connmark --mark ${mark}`, `-g ${book.chain('again')}`)
  add(NOT_SYN, '-j RETURN')
  layListeners(book, 'mangle', 'output', family, local, (interception) =>
    layRules(book, 'mangle', 'output', interception, LOCAL, '-p tcp', beginning(book, local, interception)),
  )
  book.add('mangle', 'begin', `-j CONNMARK --set-xmark ${mark}`)
  book.add('mangle', 'begin', `-g ${book.chain('again')}`)
  book.add('mangle', 'again', `-j MARK --set-xmark ${mark}`)
  book.add('mangle', 'again', '-j ACCEPT')
}

function beginning(book: ChainBook, local: readonly Interception[], interception: Interception): string {
  const label = labelOf(local, local.indexOf(interception))
  return `${label === '' ? '' : `${label} --set `}-g ${book.chain('begin')}`
}

/**
 * On lo nobody knows any more which process sent a packet: where there are several listeners, a label of its connection
 * tells which one took it. From the last one down: labels with names are counted from the first.
 */
function labelOf(local: readonly Interception[], i: number): string {
  return local.length === 1 ? '' : `-m connlabel --label ${LABELS - 1 - i}`
}

/** redirect, dnat, and kernel port forwarding. */
function natChains(book: ChainBook, input: ChainsInput, family: Family, interceptions: readonly Interception[]): void {
  const { rules } = input
  const forwards = input.forwards.filter(({ to }) => to.address.includes(':') === (family === 6))
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  if (received.length > 0 || forwards.length > 0) {
    book.jump('nat', 'PREROUTING', '', 'prerouting')
    book.add('nat', 'prerouting', '-i lo -j RETURN')
    if (received.some(({ path }) => path === 'bridged')) {
      for (const mark of [rules.interceptMark, rules.bypassMark]) {
        book.add('nat', 'prerouting', markIs(rules, mark), '-j RETURN')
      }
    } else book.add('nat', 'prerouting', markIsNot(rules, 0), '-j RETURN')
    for (const forward of forwards) layForward(book, forward, family)
  }
  if (received.length > 0) {
    book.add('nat', 'prerouting', '! -p tcp -j RETURN')
    book.add('nat', 'prerouting', NOT_SYN, '-j RETURN')
    layListeners(book, 'nat', 'prerouting', family, received, (interception) =>
      layRules(
        book,
        'nat',
        'prerouting',
        interception,
        FORWARDED,
        receivedProtocol(rules, interception),
        rewriteTo(interception),
      ),
    )
  }
  if (local.length > 0) {
    book.jump('nat', 'OUTPUT', '-p tcp', 'output')
    book.add('nat', 'output', markIsNot(rules, 0), '-j RETURN')
    book.add('nat', 'output', '-m addrtype --dst-type LOCAL -j RETURN')
    book.add('nat', 'output', NOT_SYN, '-j RETURN')
    layListeners(book, 'nat', 'output', family, local, (interception) =>
      layRules(book, 'nat', 'output', interception, LOCAL, '-p tcp', rewriteTo(interception)),
    )
  }
}

function layForward(book: ChainBook, forward: ForwardConfig, family: Family): void {
  const stages = matchStages(forward.match, forward.exclude, family, FORWARDED)
  if (stages === undefined) return
  const comment = `-m comment --comment "forward ${commentText(forward.name)}"`
  const here = forward.match.destinations.length === 0 ? '-m addrtype --dst-type LOCAL' : ''
  const { address, port } = forward.to
  const destination = port === 0 ? bracketed(address) : formatEndpoint(forward.to)
  for (const protocol of forward.protocols) {
    const rule = {
      protocol: `-p ${protocol}`,
      condition: here,
      comment,
      final: `-j DNAT --to-destination ${destination}`,
    }
    book.ladder('nat', 'prerouting', rule, stages)
    countForward(book, forward, protocol)
    if (forward.source !== 'proxy') continue
    book.jump('nat', 'POSTROUTING', '-m conntrack --ctstate DNAT', 'postrouting')
    const toPort = port === 0 ? '' : `--dport ${port}`
    book.add('nat', 'postrouting', `-p ${protocol} -d ${address}`, toPort, comment, '-j MASQUERADE')
  }
}

/** What is passed on, both ways: rules without a target, which only count. */
function countForward(book: ChainBook, { name, to }: ForwardConfig, protocol: string): void {
  book.jump('filter', 'FORWARD', '-m conntrack --ctstate DNAT', 'forward')
  for (const [direction, flag, port, word] of [
    ['ORIGINAL', '-d', '--dport', 'up'],
    ['REPLY', '-s', '--sport', 'down'],
  ] as const) {
    book.add(
      'filter',
      'forward',
      `-p ${protocol} ${flag} ${to.address}`,
      to.port === 0 ? '' : `${port} ${to.port}`,
      `-m conntrack --ctdir ${direction}`,
      `-m comment --comment "forward ${commentText(name)} ${word}"`,
    )
  }
}

/**
 * A dial from the client's own address and port looks like the client's packet: conntrack would take it for that and
 * rewrite it to ourselves. Its own zone for this direction keeps them apart; the answers are found by their addresses.
 */
function zoneChain(book: ChainBook, rules: RulesConfig, interceptions: readonly Interception[]): void {
  const foreign = interceptions.filter(({ listener, path }) => listener.source !== 'proxy' && path !== 'local')
  if (foreign.length === 0) return
  book.jump('raw', 'OUTPUT', `-p tcp ${markIs(rules, rules.bypassMark)} -m addrtype ! --src-type LOCAL`, 'output')
  for (const { listener, family } of foreign) {
    const { destinations, ports } = listener.match
    const stages = matchStages({ ...MATCH_ANY, destinations, ports }, MATCH_ANY, family, RETURNED)
    if (stages === undefined) continue
    const rule = { protocol: '-p tcp', comment: commentOf(listener), final: `-j CT --zone-orig ${CONNTRACK_ZONE}` }
    book.ladder('raw', 'output', rule, stages)
  }
}

const LABELS = 128 // of a connection (XT_CONNLABEL_MAXBIT)

/** A listener that others can dial must not be dialled: it would find itself as the destination. */
function inputChain(book: ChainBook, rules: RulesConfig, interceptions: readonly Interception[]): void {
  const seen = new Set<string>()
  for (const interception of interceptions) {
    const { listener, toPorts, family } = interception
    const loopback = listener.listen.every(({ address }) => isLoopback(address))
    const key = `${listener.name} ${family}`
    if (loopback || seen.has(key)) continue
    if (seen.size === 0) book.jump('filter', 'INPUT', SYN, 'input')
    seen.add(key)
    const taken = isUntouched(interception) ? markIsNot(rules, rules.interceptMark) : '-m conntrack ! --ctstate DNAT'
    book.add(
      'filter',
      'input',
      `! -i lo -p tcp --dport ${formatPortRange(toPorts).replace('-', ':')}`,
      taken,
      commentOf(listener),
      '-j REJECT --reject-with tcp-reset',
    )
  }
}

/** Listeners in their order, those that also take what is addressed to this host before the others. */
export function layListeners(
  book: ChainBook,
  table: Table,
  suffix: string,
  family: Family,
  interceptions: readonly Interception[],
  lay: (interception: Interception) => void,
): void {
  neverIntercepted(book, table, suffix, family)
  const here = interceptions.filter(({ listener }) => listener.addressedHere)
  const elsewhere = interceptions.filter(({ listener }) => !listener.addressedHere)
  for (const interception of here) lay(interception)
  if (elsewhere.length === 0) return
  // in OUTPUT it has been asked before
  if (suffix !== 'output') elsewhereOnly(book, table, suffix, elsewhere, lay)
  else for (const interception of elsewhere) lay(interception)
}

/** What is addressed to this host goes round them, on to what follows. */
function elsewhereOnly(
  book: ChainBook,
  table: Table,
  suffix: string,
  interceptions: readonly Interception[],
  lay: (interception: Interception) => void,
): void {
  book.add(table, suffix, '-m addrtype --dst-type LOCAL -j RETURN')
  for (const interception of interceptions) lay(interception)
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
  const prefixes =
    family === 4
      ? ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4']
      : ['::', '::1', 'fe80::/10', 'ff00::/8']
  for (const prefix of prefixes) book.add(table, suffix, `-d ${prefix} -j RETURN`)
}

function tproxyTo({ to }: Interception, mark: number, rules: RulesConfig): string {
  return `-j TPROXY --on-port ${to.port} --on-ip ${to.address} --tproxy-mark ${hex(mark)}/${hex(rules.markMask)}`
}

function rewriteTo({ listener, to, toPorts }: Interception): string {
  if (listener.intercept === 'dnat') return `-j DNAT --to-destination ${formatEndpoint(to)}`
  const random = toPorts.from === toPorts.to ? '' : ' --random'
  return `-j REDIRECT --to-ports ${formatPortRange(toPorts)}${random}`
}

export function markIs(rules: RulesConfig, mark: number): string {
  return `-m mark --mark ${hex(mark)}/${hex(rules.markMask)}`
}

export function markIsNot(rules: RulesConfig, mark: number): string {
  return `-m mark ! --mark ${hex(mark)}/${hex(rules.markMask)}`
}

export function commentOf(listener: ListenerConfig): string {
  return `-m comment --comment "listener ${commentText(listener.name)}"`
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}
