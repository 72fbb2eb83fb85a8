import { MATCH_ANY } from '../config/defaults.ts'
import type { ForwardConfig, Protocol, RulesConfig } from '../config/types.ts'
import { type Family, formatEndpoint } from '../net/address.ts'
import { formatPortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Interception } from './interception.ts'
import {
  ADDRESSED_HERE,
  commentOf,
  FORWARDED,
  isRouted,
  LOCAL,
  layBypass,
  layListeners,
  markIs,
  markIsNot,
  NOT_SYN,
} from './iptables-listeners.ts'
import { IPTABLES, matchStages, type StageOptions } from './iptables-match.ts'
import type { ChainBook } from './iptables-text.ts'
import { commentText } from './nft-text.ts'
import { CONNTRACK_ZONE } from './policy-routing.ts'

const DIALLED: StageOptions = { dialect: IPTABLES, interfaces: undefined }
const SENT_CHAIN = { tcp: 'output', udp: 'udpoutput' } as const

/** The chains of redirect and dnat listeners, and of kernel port forwarding, for one family. `interceptions`: of such listeners. */
export function natChains(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
  forwards: readonly ForwardConfig[],
  bypass: readonly Prefix[],
): void {
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  zoneChains(book, rules, received)
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
  receivedChains(book, rules, family, received, bypass)
  for (const protocol of ['tcp', 'udp'] as const) {
    sentChain(
      book,
      rules,
      family,
      local.filter((one) => one.protocol === protocol),
      protocol,
      bypass,
    )
  }
}

/** The table nat sees only the first packet of a flow: with TCP that must be a SYN. */
function receivedChains(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  received: readonly Interception[],
  bypass: readonly Prefix[],
): void {
  const tcp = received.filter(({ protocol }) => protocol === 'tcp')
  const udp = received.filter(({ protocol }) => protocol === 'udp')
  const chain = { table: 'nat', family, options: FORWARDED, addressedHere: '-j RETURN' } as const
  if (udp.length > 0) book.add('nat', 'prerouting', '-p udp', `-g ${book.chain('udp')}`)
  if (tcp.length > 0) {
    book.add('nat', 'prerouting', '! -p tcp -j RETURN')
    book.add('nat', 'prerouting', NOT_SYN, '-j RETURN')
    if (tcp.some(isRouted)) layBypass(book, 'nat', 'prerouting', 'tcp', bypass)
    layListeners(book, { ...chain, suffix: 'prerouting' }, rules, tcp, rewriteTo)
  }
  if (udp.length === 0) return
  if (udp.some(isRouted)) layBypass(book, 'nat', 'udp', 'udp', bypass)
  layListeners(book, { ...chain, suffix: 'udp' }, rules, udp, rewriteTo)
}

function sentChain(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  local: readonly Interception[],
  protocol: Protocol,
  bypass: readonly Prefix[],
): void {
  if (local.length === 0) return
  const suffix = SENT_CHAIN[protocol]
  book.jump('nat', 'OUTPUT', `-p ${protocol}`, suffix)
  book.add('nat', suffix, markIsNot(rules, 0), '-j RETURN')
  book.add('nat', suffix, ADDRESSED_HERE, '-j RETURN')
  if (protocol === 'tcp') book.add('nat', suffix, NOT_SYN, '-j RETURN')
  layBypass(book, 'nat', suffix, protocol, bypass)
  const chain = { table: 'nat', suffix, family, options: LOCAL, addressedHere: undefined } as const
  layListeners(book, chain, rules, local, rewriteTo)
}

function rewriteTo({ listener, to, toPorts }: Interception): string {
  if (listener.intercept === 'dnat') return `-j DNAT --to-destination ${formatEndpoint(to)}`
  const random = toPorts.from === toPorts.to ? '' : ' --random'
  return `-j REDIRECT --to-ports ${formatPortRange(toPorts)}${random}`
}

function layForward(book: ChainBook, forward: ForwardConfig, family: Family): void {
  const stages = matchStages(forward.match, forward.exclude, family, FORWARDED)
  if (stages === undefined) return
  const comment = `-m comment --comment "forward ${commentText(forward.name)}"`
  const here = forward.match.destinations.length === 0 ? ADDRESSED_HERE : ''
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
function zoneChains(book: ChainBook, rules: RulesConfig, received: readonly Interception[]): void {
  for (const { listener, family, protocol } of received) {
    if (listener.source === 'proxy') continue
    const suffix = SENT_CHAIN[protocol]
    const dialled = `-p ${protocol} ${markIs(rules, rules.bypassMark)} -m addrtype ! --src-type LOCAL`
    book.jump('raw', 'OUTPUT', dialled, suffix)
    const { destinations, ports } = listener.match
    const stages = matchStages({ ...MATCH_ANY, destinations, ports }, MATCH_ANY, family, DIALLED)
    if (stages === undefined) continue
    const final = `-j CT --zone-orig ${CONNTRACK_ZONE}`
    book.ladder('raw', suffix, { protocol: `-p ${protocol}`, comment: commentOf(listener), final }, stages)
  }
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}
