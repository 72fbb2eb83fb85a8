import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import type { Prefix } from '../net/prefix.ts'
import type { HostBridge } from '../sys/host.ts'
import type { Interception } from './interception.ts'
import { type BypassRules, bypassRules } from './nft-bypass.ts'
import { bridgedFragments } from './nft-fragments.ts'
import { listenerRules } from './nft-listeners.ts'
import { BRIDGED, NamedSets } from './nft-match.ts'
import { passedFlows } from './nft-passed.ts'
import {
  chain,
  datagramTuple,
  flowSet,
  flowTuple,
  isBroughtUp,
  markIn,
  markIs,
  NOT_SYN,
  neverForwarded,
  nftScript,
  protocolWords,
} from './nft-text.ts'
import { localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

const FLOWS_TIMEOUT = '1h' // each packet of ours begins it anew, keepalives too
const BEGUN_TIMEOUT = '10s' // until the handshake's last packet; so long a SYN of a flood takes room
const ENDED_TIMEOUT = '60s' // for what comes after a FIN (RFC 9293 §3.6.1, and Linux's TIME_WAIT)
const FLOWS_SIZE = 262_144
const TO_MANY = 'meta pkttype { broadcast, multicast } return'
const ANSWERS_TIMEOUT = '120s' // as long as a session (RFC 4787 §4.3, REQ-5); each datagram of ours begins it anew

/**
 * The table that brings frames of intercepted flows up from bridges to this host's own stack, where the rules of the inet
 * table take them. Undefined when no listener takes bridged frames. Frames that are not intercepted cross untouched.
 *
 * A bridge has no sockets to ask: the flows that were begun are kept in sets, those of the clients by their SYNs, and those
 * of our own dials by the packets that leave here with our mark. Of clients' datagrams each is asked about.
 */
export function bridgeScript(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  prefixes: readonly Prefix[],
): Script | undefined {
  const bridged = interceptions.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
  if (bridged.length === 0) return undefined
  const sets = new NamedSets()
  const note = passedFlows(ofProtocol(bridged, 'udp')).noteWhere('meta l4proto udp')
  const bypass = bypassRules(rules, bridged, prefixes, note)
  const connections = connectionRules(ofProtocol(bridged, 'tcp'), sets, bypass)
  const datagrams = datagramRules(ofProtocol(bridged, 'udp'), sets, bypass)
  const purpose = `Brings frames of intercepted ${protocolWords(bridged)} flows up from bridges.`
  return nftScript('bridge', rules.nftTable, purpose, [
    ...sets.lines(),
    ...bypass.sets,
    ...connections.sets,
    ...datagrams.sets,
    ...bypass.chains,
    ...chain('up', undefined, [
      ...datagrams.broughtUp,
      ...bridgesOf(bridged).map(
        ({ mac, ports }) =>
          `iifname ${inlined(ports)} meta pkttype set host ether daddr set ${mac} meta mark set ${markIn(rules, localMark(rules))} counter accept`,
      ),
    ]),
    ...chain('datagrams', undefined, datagrams.received),
    ...chain('prerouting', 'filter hook prerouting priority dstnat', [
      '# a tag lies beside the packet: what is behind it would look untagged',
      'ether type vlan return',
      ...(datagrams.received.length === 0 ? [] : ['meta l4proto udp goto datagrams']),
      ...connections.received,
    ]),
    ...chain('output', 'filter hook output priority filter', [
      "# Limpid's own packets: what answers them is ours",
      `${markIs(rules, '!=', rules.bypassMark)} return`,
      ...datagrams.sent,
      ...connections.sent,
    ]),
  ])
}

interface BridgeRules {
  readonly sets: readonly string[]
  readonly received: readonly string[]
  /** About our own packets. */
  readonly sent: readonly string[]
}

const NOTHING: BridgeRules = { sets: [], received: [], sent: [] }

function connectionRules(bridged: readonly Interception[], sets: NamedSets, bypass: BypassRules): BridgeRules {
  if (bridged.length === 0) return NOTHING
  const families = familiesOf(bridged)
  const note = (family: Family, direction: 'sent' | 'answered', timeout?: string) =>
    `update @flows${family} { ${flowTuple(family, direction)}${timeout === undefined ? '' : ` timeout ${timeout}`} }`
  return {
    sets: families.flatMap((family) => flowSet(`flows${family}`, family, FLOWS_TIMEOUT, FLOWS_SIZE)),
    received: [
      'meta l4proto != tcp return',
      '',
      '# flows that were taken',
      ...families.map((family) => `${flowTuple(family)} @flows${family} goto up`),
      '',
      '# of what crosses, flows that are bypassed are counted',
      ...[...bypass.count('sent', ['tcp']), ...bypass.count('answered', ['tcp'])].map((line) => `${NOT_SYN} ${line}`),
      '',
      '# only the beginning of a flow is taken',
      `${NOT_SYN} return`,
      ...neverForwarded(),
      '',
      ...bypass.decide(['tcp'], families, { fib: false }),
      ...listenerRules(
        bridged,
        sets,
        BRIDGED,
        // where there is no room for another flow it crosses untaken
        ({ family }) => `${note(family, 'sent', BEGUN_TIMEOUT)} counter goto up`,
      ),
    ],
    sent: [
      ...families.map((family) => `tcp flags & (fin|rst) != 0 ${note(family, 'answered', ENDED_TIMEOUT)} return`),
      ...families.map((family) => `tcp flags & syn != 0 ${note(family, 'answered', BEGUN_TIMEOUT)} return`),
      ...families.map((family) => `${protocolOf(family)} ${note(family, 'answered')}`),
    ],
  }
}

/** `broughtUp`: rules about what comes up. */
function datagramRules(
  bridged: readonly Interception[],
  sets: NamedSets,
  bypass: BypassRules,
): BridgeRules & { readonly broughtUp: readonly string[] } {
  if (bridged.length === 0) return { ...NOTHING, broughtUp: [] }
  const families = familiesOf(bridged)
  const passed = passedFlows(bridged)
  const fragments = bridgedFragments(families)
  return {
    sets: [
      ...families.flatMap((family) => flowSet(`answers${family}`, family, ANSWERS_TIMEOUT, FLOWS_SIZE)),
      ...passed.sets,
      ...fragments.sets,
    ],
    broughtUp: fragments.note,
    received: [
      TO_MANY,
      '',
      '# fragments behind a first one that came up',
      ...fragments.follow('goto up'),
      '',
      '# answers to our own datagrams',
      ...families.map((family) => `${datagramTuple(family)} @answers${family} goto up`),
      '',
      '# answers to what was bypassed',
      ...bypass.count('answered', ['udp']),
      '',
      ...passed.letBy,
      ...passed.letLateBy,
      '',
      ...neverForwarded(),
      '',
      ...bypass.decide(['udp'], families, { fib: false }),
      ...listenerRules(bridged, sets, BRIDGED, (one) => `${passed.noteTaken(one)}counter goto up`),
      '',
      ...passed.note,
    ],
    sent: families.map((family) => `update @answers${family} { ${datagramTuple(family, 'answered')} }`),
  }
}

/** The table that drops frames which `closed` listeners should have taken; undefined when there are none. */
export function bridgeGuard(rules: RulesConfig, table: string, closed: readonly Interception[]): Script | undefined {
  const bridged = closed.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
  if (bridged.length === 0) return undefined
  const sets = new NamedSets()
  const connections = ofProtocol(bridged, 'tcp')
  const datagrams = ofProtocol(bridged, 'udp')
  // of what NAT rewrites, too, a bridge sees both directions
  const passed = passedFlows(datagrams)
  const dropped = (ones: readonly Interception[]) => listenerRules(ones, sets, BRIDGED, () => 'counter drop')
  const droppedDatagrams = dropped(datagrams)
  const droppedConnections = dropped(connections)
  return nftScript('bridge', table, 'Drops frames that closed listeners did not take, also while Limpid is down.', [
    ...sets.lines(),
    ...passed.sets,
    ...chain(
      'datagrams',
      undefined,
      datagrams.length === 0
        ? []
        : [
            TO_MANY,
            '',
            ...passed.letBy,
            ...passed.letLateBy,
            '',
            ...neverForwarded(),
            ...droppedDatagrams,
            '',
            ...passed.note,
          ],
    ),
    ...chain(
      'prerouting',
      'filter hook prerouting priority dstnat + 1', // behind the table that brings frames up
      passed.noteAllTaken(isBroughtUp(rules)),
    ),
    ...chain('forward', 'filter hook forward priority filter', [
      ...passed.noteWhere(`meta l4proto udp ${markIs(rules, '==', rules.bypassMark)}`),
      `${markIs(rules, '!=', 0)} return`,
      'ether type vlan return',
      ...(datagrams.length === 0 ? [] : ['meta l4proto udp goto datagrams']),
      ...(connections.length === 0
        ? []
        : ['meta l4proto != tcp return', `${NOT_SYN} return`, ...neverForwarded(), ...droppedConnections]),
    ]),
  ])
}

/** Each bridge once. */
function bridgesOf(bridged: readonly Interception[]): HostBridge[] {
  return [...new Map(bridged.flatMap(({ bridges }) => bridges).map((bridge) => [bridge.name, bridge])).values()]
}

function familiesOf(bridged: readonly Interception[]): Family[] {
  return [...new Set(bridged.map(({ family }) => family))].sort()
}

function ofProtocol(bridged: readonly Interception[], protocol: Interception['protocol']): Interception[] {
  return bridged.filter((one) => one.protocol === protocol)
}

function protocolOf(family: Family): string {
  return family === 4 ? 'ip protocol tcp' : 'ip6 nexthdr tcp'
}

function inlined(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`)
  return quoted.length === 1 ? quoted[0]! : `{ ${quoted.join(', ')} }`
}
