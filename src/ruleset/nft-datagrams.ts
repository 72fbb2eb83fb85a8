import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { type Interception, mayTakeAnswers } from './interception.ts'
import type { BypassRules } from './nft-bypass.ts'
import { isTproxy, listenerRules, listenersInOrder, toListener, tproxyTo } from './nft-listeners.ts'
import { addressKeyword, type NamedSets, RECEIVED, SENT } from './nft-match.ts'
import { type PassedFlows, passedFlows } from './nft-passed.ts'
import { chain, datagramTuple, flowSet, markIs, neverIntercepted, setName } from './nft-text.ts'
import { hex } from './policy-routing.ts'

const SESSIONS_TIMEOUT = '10s' // from output to lo takes no time, unless a program looks at the datagram in between (nfqueue)
const SESSIONS_SIZE = 262_144

/** What tproxy and mark listeners for UDP add to the nft table. */
export interface DatagramRules {
  readonly sets: readonly string[]
  /** Rules of the chain `back`. */
  readonly back: readonly string[]
  /** `datagrams`, which is asked about what is received, and the chains that it needs. */
  readonly received: readonly string[]
  /** `sent-datagrams`, which is asked about what processes here send; none when nobody need ask. */
  readonly sent: readonly string[]
}

/**
 * Each datagram is judged by itself, for none says that it begins a flow. First come the sockets of ours that receive answers:
 * they have the bypass mark. Those that send to clients with a server's address have another one, and receive nothing.
 * They need the chains `take`, `divert` and `again`.
 *
 * `interceptions`: of UDP. `torn`: the families in which nothing else puts fragments together. `forwards`: the kernel passes on
 * datagrams for us.
 */
export function datagramRules(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  torn: readonly Family[],
  sets: NamedSets,
  forwards: boolean,
  bypass: BypassRules | undefined,
): DatagramRules {
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  // of what crosses a bridge, its own table knows what passes by
  const passed = passedFlows([...received.filter(({ path }) => path === 'forwarded'), ...local])
  return {
    sets: [
      ...passed.sets,
      ...local.flatMap((one) => flowSet(sessionsOf(one), one.family, SESSIONS_TIMEOUT, SESSIONS_SIZE)),
    ],
    back: local.filter(isTproxy).map(backLine),
    received: [
      ...chain('whole', undefined, wholeLines(torn)),
      ...chain('pass', undefined, passed.note),
      ...chain('datagrams', undefined, receivedLines(rules, received, local, passed, sets, forwards, bypass)),
    ],
    sent: chain('sent-datagrams', undefined, sentLines(rules, received, local, passed, sets, bypass)),
  }
}

/** nft's `socket` asks nobody to put fragments together, as its `tproxy` does (nft_tproxy_init, net/netfilter/nft_tproxy.c). */
function wholeLines(families: readonly Family[]): string[] {
  if (families.length === 0) return []
  return [
    '# never asked: with such a rule the kernel shows datagrams to all others in one piece; only the first fragment has ports',
    ...families.map((family) => `meta l4proto udp tproxy ${addressKeyword(family)} to :1`),
  ]
}

function receivedLines(
  rules: RulesConfig,
  received: readonly Interception[],
  local: readonly Interception[],
  passed: PassedFlows,
  sets: NamedSets,
  forwards: boolean,
  bypass: BypassRules | undefined,
): string[] {
  const passes = received.some((one) => one.path === 'forwarded' && mayTakeAnswers(one))
  const passesHere = local.some(mayTakeAnswers)
  const ownSocket = `socket mark & ${hex(rules.markMask)} == ${hex(rules.bypassMark)}`
  return [
    "# Limpid's own packets",
    `${markIs(rules, '==', rules.bypassMark)} return`,
    '',
    '# answers to sockets here that have the address of somebody else',
    `fib daddr type != local ${ownSocket} jump divert`,
    ...(passesHere ? ['# answers to other sockets of Limpid', `fib daddr type local ${ownSocket} return`] : []),
    '',
    ...(passes && forwards ? ['# what the kernel passes on, and its answers', 'ct status dnat return'] : []),
    ...(passes ? [...passed.letBy, ...passed.letLateBy] : []),
    ...(received.length === 0
      ? []
      : [
          '',
          ...neverIntercepted(),
          ...(bypass === undefined ? [] : ['', ...bypass.decide(['udp'], familiesOf(received))]),
          ...listenersInOrder(
            received,
            sets,
            RECEIVED,
            (one) => toListener(rules, `${passed.noteTaken(one)}goto take`)(one),
            passesHere ? 'goto pass' : 'return',
          ),
        ]),
    ...(passes ? ['', 'goto pass'] : []),
    ...(passesHere && received.length === 0 ? ['fib daddr type local goto pass'] : []),
  ]
}

/** What processes here send: taken on the path local, or noted where a listener also takes what is addressed to this host. */
function sentLines(
  rules: RulesConfig,
  received: readonly Interception[],
  local: readonly Interception[],
  passed: PassedFlows,
  sets: NamedSets,
  bypass: BypassRules | undefined,
): string[] {
  const passes = received.some((one) => one.path === 'forwarded' && one.listener.addressedHere && mayTakeAnswers(one))
  if (local.length === 0 && !passes) return []
  return [
    "# Limpid's own packets",
    `${markIs(rules, '!=', 0)} return`,
    '',
    ...(local.some(mayTakeAnswers) ? [...passed.letBy, ''] : []),
    ...neverIntercepted(),
    'fib daddr type local return',
    ...(local.length === 0 || bypass === undefined ? [] : ['', ...bypass.decide(['udp'], familiesOf(local))]),
    ...listenerRules(
      local,
      sets,
      SENT,
      (one) => `update @${sessionsOf(one)} { ${datagramTuple(one.family)} } ${passed.noteTaken(one)}counter goto again`,
    ),
    ...(passes ? ['', 'goto pass'] : []),
  ]
}

function familiesOf(interceptions: readonly Interception[]): Family[] {
  return [...new Set(interceptions.map(({ family }) => family))].sort()
}

/** On lo nobody knows any more which process sent a datagram; its addresses and ports tell which listener took it. */
function backLine(one: Interception): string {
  return `meta l4proto udp ${datagramTuple(one.family)} @${sessionsOf(one)} ${tproxyTo(one)} accept`
}

function sessionsOf({ listener, family }: Interception): string {
  return `${setName('listener', listener)}-sessions${family}`
}
