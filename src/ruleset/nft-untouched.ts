import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import type { Diverted, Interception } from './interception.ts'
import type { BypassRules } from './nft-bypass.ts'
import { connectionRules } from './nft-connections.ts'
import { type DatagramRules, datagramRules } from './nft-datagrams.ts'
import { isTproxy } from './nft-listeners.ts'
import type { NamedSets } from './nft-match.ts'
import { passedFlows } from './nft-passed.ts'
import { chain, markIn, markIs } from './nft-text.ts'
import { localMark } from './policy-routing.ts'

/** What the chains of tproxy and mark listeners are written from. */
export interface UntouchedInput {
  readonly rules: RulesConfig
  /** Of tproxy and mark listeners; with none of them packets are only diverted to transparent sockets. */
  readonly interceptions: readonly Interception[]
  readonly divert: readonly Diverted[]
  /** Other chains of the table rewrite packets: conntrack puts fragments together. */
  readonly rewrites: boolean
  /** The kernel passes on datagrams for us. */
  readonly forwardsDatagrams: boolean
  /** Undefined where nothing is intercepted. */
  readonly bypass: BypassRules | undefined
}

/**
 * The sets and chains of tproxy and mark listeners. Connections are known by their SYN, datagrams each by itself.
 *
 * Errors are about a packet that they quote: its socket is found by that. Addressed to the client, they would be forwarded to it,
 * and a socket with the client's address would never learn that its packets are too big.
 *
 * What processes of this host send is routed to lo by a mark of its own, and comes in again there.
 */
export function untouchedChains(
  input: UntouchedInput,
  sets: NamedSets,
): { readonly sets: readonly string[]; readonly chains: readonly string[] } {
  const { rules, interceptions, divert } = input
  const isLocal = interceptions.some(({ path }) => path === 'local')
  const connections = connectionRules(rules, ofProtocol(interceptions, 'tcp'), sets, input.bypass)
  const datagrams = datagramsOf(input, sets)
  const taken = interceptions.every(({ path }) => path === 'local')
    ? []
    : [...connections.begun, `meta mark set ${markIn(rules, rules.interceptMark)} accept`]
  return {
    sets: [...connections.sets, ...datagrams.sets],
    chains: [
      ...chain('take', undefined, taken),
      ...chain('back', undefined, isLocal ? [...connections.back, ...datagrams.back, 'accept'] : []),
      ...chain('divert', undefined, [
        '# a socket that listens on all addresses is not meant for those of somebody else',
        'socket wildcard 1 return',
        `meta mark set ${markIn(rules, rules.interceptMark)} counter accept`,
      ]),
      ...datagrams.received,
      ...chain('prerouting', 'filter hook prerouting priority mangle', [
        ...(isLocal
          ? ['# made on this host, and routed to lo', `iifname "lo" ${markIs(rules, '==', localMark(rules))} goto back`]
          : []),
        'iifname "lo" return',
        '',
        '# errors about what sockets here have sent',
        'meta l4proto { icmp, icmpv6 } socket transparent 1 jump divert',
        '',
        ...(datagrams.received.length === 0 ? [] : ['meta l4proto udp goto datagrams']),
        ...(divert.some(({ protocol }) => protocol === 'tcp') ? connections.received : []),
      ]),
      ...chain('again', undefined, isLocal ? [`meta mark set ${markIn(rules, localMark(rules))} accept`] : []),
      ...datagrams.sent,
      ...chain('output', 'route hook output priority mangle', [
        ...(datagrams.sent.length === 0 ? [] : ['meta l4proto udp goto sent-datagrams']),
        ...connections.sent,
      ]),
    ],
  }
}

/** Rules that note a datagram that is let by, so that its answers are, too; none where no listener could take those. */
export function notePassed(interceptions: readonly Interception[]): readonly string[] {
  return passedFlows(ofProtocol(interceptions, 'udp').filter(({ path }) => path !== 'bridged')).noteWhere(
    'meta l4proto udp',
  )
}

function datagramsOf(input: UntouchedInput, sets: NamedSets): DatagramRules {
  const { rules, interceptions, divert, rewrites, forwardsDatagrams, bypass } = input
  const families = ofProtocol(divert, 'udp').map(({ family }) => family)
  if (families.length === 0) return { sets: [], back: [], received: [], sent: [] }
  const isWhole = (family: Family) => rewrites || interceptions.some((one) => one.family === family && isTproxy(one))
  const torn = families.filter((family) => !isWhole(family))
  return datagramRules(rules, ofProtocol(interceptions, 'udp'), torn, sets, forwardsDatagrams, bypass)
}

function ofProtocol<T extends Diverted>(list: readonly T[], protocol: Diverted['protocol']): T[] {
  return list.filter((one) => one.protocol === protocol)
}
