import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import type { Interception } from './interception.ts'
import type { BypassRules } from './nft-bypass.ts'
import { isTproxy, listenerRules, listenersInOrder, toListener, tproxyTo } from './nft-listeners.ts'
import { type NamedSets, RECEIVED, SENT } from './nft-match.ts'
import { flowSet, flowTuple, markIs, NOT_SYN, neverIntercepted, SYN, setName } from './nft-text.ts'

const BEGUN_SECONDS = 10 // a client's ACK follows our SYN-ACK within a round trip
const BEGUN_SIZE = 262_144 // 26 000 new flows/s; at 100 bytes each a SYN flood can pin 26 MB of kernel memory
const LOCAL_SIZE = 262_144
const LOCAL_BEGUN_TIMEOUT = '30s' // until the client's next packet
const ENDED_TIMEOUT = '60s' // for what comes after a FIN (Linux's TIME_WAIT)
const LOCAL_TIMEOUT = '15m' // each packet begins it anew, and the listener's keepalive makes the client send some
const LOCAL_TIMEOUT_WITHOUT_KEEPALIVE = '1d'
const KEEPALIVE_MS = 600_000

/** What the SYN logic of tproxy and mark listeners for TCP adds to the nft table. */
export interface ConnectionRules {
  readonly sets: readonly string[]
  /** Rules of the chain `take`, before the mark is set. */
  readonly begun: readonly string[]
  /** Rules of the chain `back`. */
  readonly back: readonly string[]
  /** Rules about what is received. */
  readonly received: readonly string[]
  /** Rules about what processes of this host send; none when no listener takes that. */
  readonly sent: readonly string[]
}

/**
 * A flow is taken by its SYN, and its other packets by the socket that came of it. So what is forwarded past us keeps
 * working: the answers of a connection made from the other side, flows older than the rules, and what is excluded. Under a
 * SYN flood the kernel keeps no socket before the handshake's last packet (SYN cookies); that one is known by a set of
 * the flows that have just begun.
 *
 * No socket tells which packets of this host's processes belong to flows that were taken: a set of flows for each listener does.
 *
 * `interceptions`: of TCP. The rules need the chains `take`, `divert` and `again`.
 */
export function connectionRules(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  sets: NamedSets,
  bypass: BypassRules | undefined,
): ConnectionRules {
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  const families = [...new Set(received.map(({ family }) => family))].sort()
  return {
    sets: [
      ...families.flatMap((family) => flowSet(`begun${family}`, family, `${BEGUN_SECONDS}s`, BEGUN_SIZE)),
      ...local.flatMap((one) => flowSet(flowsOf(one), one.family, timeoutOf(one), LOCAL_SIZE)),
    ],
    begun: families.map((family) => `${SYN} update @begun${family} { ${flowTuple(family)} }`),
    back: local.filter(isTproxy).map(backLine),
    received: [
      'meta l4proto != tcp return',
      '',
      "# Limpid's own packets",
      `${markIs(rules, '==', rules.bypassMark)} return`,
      '',
      '# packets of flows that have a socket here; a SYN may find that of an older flow, so it comes last',
      `${NOT_SYN} socket transparent 1 jump divert`,
      ...(received.length === 0 ? [] : receivedLines(rules, received, families, sets, bypass)),
      '',
      '# new flows to a socket that listens on an address of somebody else',
      `${SYN} socket transparent 1 jump divert`,
    ],
    sent: local.length === 0 ? [] : sentLines(rules, local, sets, bypass),
  }
}

function receivedLines(
  rules: RulesConfig,
  received: readonly Interception[],
  families: readonly Family[],
  sets: NamedSets,
  bypass: BypassRules | undefined,
): string[] {
  return [
    '',
    '# of what has no socket, only the beginning of a flow is taken',
    ...families.map((family) => `${NOT_SYN} ${flowTuple(family)} != @begun${family} return`),
    '',
    ...neverIntercepted(),
    ...(bypass === undefined ? [] : ['', ...bypass.decide(['tcp'], families)]),
    ...listenersInOrder(received, sets, RECEIVED, toListener(rules, 'goto take')),
  ]
}

function sentLines(
  rules: RulesConfig,
  local: readonly Interception[],
  sets: NamedSets,
  bypass: BypassRules | undefined,
): string[] {
  const families = [...new Set(local.map(({ family }) => family))].sort()
  return [
    'meta l4proto != tcp return',
    '',
    "# Limpid's own packets",
    `${markIs(rules, '!=', 0)} return`,
    '',
    ...neverIntercepted(),
    'fib daddr type local return',
    '',
    '# packets of flows that were taken',
    ...local.flatMap((one) => [
      `${NOT_SYN} tcp flags & (fin|rst) != 0 ${flowTuple(one.family)} @${flowsOf(one)} ${noteFlow(one, ENDED_TIMEOUT)} goto again`,
      `${NOT_SYN} ${flowTuple(one.family)} @${flowsOf(one)} ${noteFlow(one)} goto again`,
    ]),
    '',
    '# only the beginning of a flow is taken',
    `${NOT_SYN} return`,
    '# one that had the same addresses and ports is over',
    ...local.map((one) => `delete @${flowsOf(one)} { ${flowTuple(one.family)} }`),
    ...(bypass === undefined ? [] : ['', ...bypass.decide(['tcp'], families)]),
    ...listenerRules(local, sets, SENT, (one) => `${noteFlow(one, LOCAL_BEGUN_TIMEOUT)} counter goto again`),
  ]
}

function noteFlow(one: Interception, timeout?: string): string {
  return `update @${flowsOf(one)} { ${flowTuple(one.family)}${timeout === undefined ? '' : ` timeout ${timeout}`} }`
}

/** On lo nobody knows any more which process sent a packet; its flow tells which listener took it. */
function backLine(one: Interception): string {
  return `meta l4proto tcp ${flowTuple(one.family)} @${flowsOf(one)} ${tproxyTo(one)} accept`
}

function flowsOf({ listener, family }: Interception): string {
  return `${setName('listener', listener)}-flows${family}`
}

function timeoutOf({ listener }: Interception): string {
  const { deadPeerMs } = listener.timeouts
  return deadPeerMs > 0 && deadPeerMs <= KEEPALIVE_MS ? LOCAL_TIMEOUT : LOCAL_TIMEOUT_WITHOUT_KEEPALIVE
}
