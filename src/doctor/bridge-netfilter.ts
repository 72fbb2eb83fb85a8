import { readSysctl } from '../sys/host.ts'
import { type Finding, note, ok, wrong } from './finding.ts'
import type { Link } from './links.ts'

export interface BridgeNetfilter {
  readonly links: readonly Link[]
  /** Bridges, or ports of bridges, whose traffic is taken. */
  readonly takenBridges: readonly string[]
  readonly callIptables: boolean
  readonly callIp6tables: boolean
}

const KEY = { iptables: 'net.bridge.bridge-nf-call-iptables', ip6tables: 'net.bridge.bridge-nf-call-ip6tables' }

export function readBridgeNetfilter(links: readonly Link[], clientLinks: readonly Link[]): BridgeNetfilter {
  return {
    links,
    takenBridges: bridgesOfLinks(clientLinks),
    callIptables: readSysctl(KEY.iptables) === '1',
    callIp6tables: readSysctl(KEY.ip6tables) === '1',
  }
}

/** The bridges among these links, and those that they are ports of. */
export function bridgesOfLinks(links: readonly Link[]): string[] {
  const names = links.map(({ name, bridge, master }) => (bridge === undefined ? master : name))
  return [...new Set(names.filter((name) => name !== undefined))]
}

/**
 * br_netfilter runs the inet hooks while a frame is still in the bridge, and not again when it comes up: what tproxy found
 * there is forgotten when the frame comes up (net/bridge/br_netfilter_hooks.c).
 */
export function bridgeFindings({ links, takenBridges, callIptables, callIp6tables }: BridgeNetfilter): Finding[] {
  const bridges = links.filter(({ bridge }) => bridge !== undefined)
  if (bridges.length === 0) return [ok('bridge-nf-call', 'there is no bridge on this host')]
  const findings: Finding[] = []
  for (const [name, on] of [
    ['iptables', callIptables],
    ['ip6tables', callIp6tables],
  ] as const) {
    const switched = bridges.filter(({ bridge }) =>
      name === 'iptables' ? bridge?.callIptables : bridge?.callIp6tables,
    )
    if (!on && switched.length === 0) continue
    const affected = (on ? bridges : switched).map((link) => link.name)
    const what = on ? `${KEY[name]} is 1` : `nf_call_${name} of the bridge ${affected.join(' and ')} is 1`
    const cure = on ? `sysctl -w ${KEY[name]}=0` : `ip link set ${affected[0]} type bridge nf_call_${name} 0`
    const lost = affected.filter((bridge) => takenBridges.includes(bridge))
    findings.push(
      lost.length > 0
        ? wrong('bridge-nf-call', `${what}: what tproxy takes from ${lost.join(' and ')} is lost on its way up`, cure)
        : note('bridge-nf-call', `${what}: harmless, since nothing is taken from ${affected.join(' and ')}`, cure),
    )
  }
  const names = bridges.map(({ name }) => name).join(' and ')
  return findings.length > 0 ? findings : [ok('bridge-nf-call', `the inet hooks leave frames in ${names} alone`)]
}
