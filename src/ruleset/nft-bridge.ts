import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import type { HostBridge } from '../sys/host.ts'
import type { Interception } from './interception.ts'
import { listenerRules } from './nft-listeners.ts'
import { BRIDGED, NamedSets } from './nft-match.ts'
import { chain, flowSet, flowTuple, markIn, markIs, NOT_SYN, neverForwarded, nftScript } from './nft-text.ts'
import { localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

const FLOWS_TIMEOUT = '1h' // each packet of ours begins it anew, keepalives too
const BEGUN_TIMEOUT = '10s' // until the handshake's last packet; so long a SYN of a flood takes room
const ENDED_TIMEOUT = '60s' // for what comes after a FIN (RFC 9293 §3.6.1, and Linux's TIME_WAIT)
const FLOWS_SIZE = 262_144

/**
 * The table that brings frames of intercepted flows up from bridges to this host's own stack, where the rules of the inet
 * table take them. Undefined when no listener takes bridged frames. Frames that are not intercepted cross untouched.
 *
 * A bridge has no sockets to ask: the flows that were begun are kept in sets, those of the clients by their SYNs, and those
 * of our own dials by the packets that leave here with our mark.
 */
export function bridgeScript(rules: RulesConfig, interceptions: readonly Interception[]): Script | undefined {
  const bridged = interceptions.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
  if (bridged.length === 0) return undefined
  const sets = new NamedSets()
  const families = [...new Set(bridged.map(({ family }) => family))].sort()
  const bridges = bridgesOf(bridged)
  const note = (family: Family, direction: 'sent' | 'answered', timeout?: string) =>
    `update @flows${family} { ${flowTuple(family, direction)}${timeout === undefined ? '' : ` timeout ${timeout}`} }`
  const listeners = listenerRules(
    bridged,
    sets,
    BRIDGED,
    // where there is no room for another flow it crosses untaken
    ({ family }) => `${note(family, 'sent', BEGUN_TIMEOUT)} counter goto up`,
  )
  return nftScript('bridge', rules.nftTable, 'Brings frames of intercepted TCP flows up from bridges.', [
    ...sets.lines(),
    ...families.flatMap((family) => flowSet(`flows${family}`, family, FLOWS_TIMEOUT, FLOWS_SIZE)),
    ...chain(
      'up',
      undefined,
      bridges.map(
        ({ mac, ports }) =>
          `iifname ${inlined(ports)} meta pkttype set host ether daddr set ${mac} meta mark set ${markIn(rules, localMark(rules))} counter accept`,
      ),
    ),
    ...chain('prerouting', 'filter hook prerouting priority dstnat', [
      '# a tag lies beside the packet: what is behind it would look untagged',
      'ether type vlan return',
      'meta l4proto != tcp return',
      '',
      '# flows that were taken',
      ...families.map((family) => `${flowTuple(family)} @flows${family} goto up`),
      '',
      '# only the beginning of a flow is taken',
      `${NOT_SYN} return`,
      ...neverForwarded(),
      ...listeners,
    ]),
    ...chain('output', 'filter hook output priority filter', [
      "# Limpid's own packets: what answers them is ours",
      `${markIs(rules, '!=', rules.bypassMark)} return`,
      ...families.map((family) => `tcp flags & (fin|rst) != 0 ${note(family, 'answered', ENDED_TIMEOUT)} return`),
      ...families.map((family) => `tcp flags & syn != 0 ${note(family, 'answered', BEGUN_TIMEOUT)} return`),
      ...families.map((family) => `${protocolOf(family)} ${note(family, 'answered')}`),
    ]),
  ])
}

/** The table that drops frames which `closed` listeners should have taken; undefined when there are none. */
export function bridgeGuard(rules: RulesConfig, table: string, closed: readonly Interception[]): Script | undefined {
  const bridged = closed.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
  if (bridged.length === 0) return undefined
  const sets = new NamedSets()
  const lines = listenerRules(bridged, sets, BRIDGED, () => 'counter drop')
  return nftScript('bridge', table, 'Drops frames that closed listeners did not take, also while Limpid is down.', [
    ...sets.lines(),
    ...chain('forward', 'filter hook forward priority filter', [
      `${markIs(rules, '!=', 0)} return`,
      'ether type vlan return',
      'meta l4proto != tcp return',
      `${NOT_SYN} return`,
      ...neverForwarded(),
      ...lines,
    ]),
  ])
}

/** Each bridge once. */
function bridgesOf(bridged: readonly Interception[]): HostBridge[] {
  return [...new Map(bridged.flatMap(({ bridges }) => bridges).map((bridge) => [bridge.name, bridge])).values()]
}

function protocolOf(family: Family): string {
  return family === 4 ? 'ip protocol tcp' : 'ip6 nexthdr tcp'
}

function inlined(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`)
  return quoted.length === 1 ? quoted[0]! : `{ ${quoted.join(', ')} }`
}
