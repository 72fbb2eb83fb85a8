import type { ListenerConfig, Path, Protocol } from '../config/types.ts'
import { type Endpoint, type Family, familyOf } from '../net/address.ts'
import { type PortRange, portsContain } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { HostBridge, HostFacts } from '../sys/host.ts'

/** The packets of one family, path and protocol that one listener takes, and where they go. What the renderers of rules work from. */
export interface Interception {
  readonly listener: ListenerConfig
  readonly family: Family
  readonly path: Path
  readonly protocol: Protocol
  /** The listener's socket address; with `redirect` the port alone has a meaning. */
  readonly to: Endpoint
  /** More than one port with `redirect` only. */
  readonly toPorts: PortRange
  /** On the path `bridged`: the bridges that it takes from. Else empty. */
  readonly bridges: readonly InterceptedBridge[]
}

/** Packets of one family and protocol that are addressed to somebody else and must come to sockets of ours. */
export interface Diverted {
  readonly family: Family
  readonly protocol: Protocol
}

export interface InterceptedBridge extends HostBridge {
  /** Those of its ports by which clients' frames come in; servers' answers come in by any. */
  readonly from: readonly string[]
}

/** Whether packets come to the listener with their addresses as the client wrote them. */
export function isUntouched({ listener }: Interception): boolean {
  return listener.intercept === 'tproxy' || listener.intercept === 'mark'
}

/** As if the listener's own exclusions had those destinations, too: for rules that cannot ask a set that grows. */
export function withoutDestinations(one: Interception, prefixes: readonly Prefix[]): Interception {
  const { listener } = one
  const destinations = [...listener.exclude.destinations, ...prefixes]
  return { ...one, listener: { ...listener, exclude: { ...listener.exclude, destinations } } }
}

const FIRST_CLIENT_PORT = 1024 // clients send from it upwards; below it are the ports of servers (RFC 6335 §6)

/** Servers that also ask from their own port: NTP, NetBIOS, IKE, RIP, RIPng (RFC 5905, 1002, 7296, 2453, 2080). */
const PORTS_OF_BOTH_ENDS = [123, 137, 138, 500, 520, 521]

/**
 * Whether answers, too, go to ports of this listener: those to flows that it does not take must then be told from what it
 * takes. Only datagrams do not tell: a connection begins with a SYN.
 */
export function mayTakeAnswers({ protocol, listener }: Interception): boolean {
  if (protocol === 'tcp') return false
  const { ports } = listener.match
  return (
    ports.length === 0 ||
    ports.some(({ to }) => to >= FIRST_CLIENT_PORT) ||
    PORTS_OF_BOTH_ENDS.some((port) => portsContain(ports, port))
  )
}

/** One for each path and protocol. The listener must intercept, and listen in this family. */
export function interceptionsOf(listener: ListenerConfig, family: Family, facts: HostFacts): Interception[] {
  const to = listenAddress(listener, family)
  const ports = listener.listen.filter(({ address }) => familyOf(address) === family).map(({ port }) => port)
  const toPorts = { from: Math.min(...ports), to: Math.max(...ports) }
  return listener.paths.flatMap((path) => {
    const bridges = path === 'bridged' ? bridgesOf(listener, facts) : []
    return listener.protocols.map((protocol) => ({
      ...{ listener, family, path, protocol, to: { ...to, port: toPorts.from }, toPorts, bridges },
    }))
  })
}

/** Where tproxy sends packets: a wildcard address would mean the receiving interface's own (net/netfilter/nft_tproxy.c). */
function listenAddress(listener: ListenerConfig, family: Family): Endpoint {
  const { address, port } = listener.listen.find((endpoint) => familyOf(endpoint.address) === family)!
  if (address === '0.0.0.0') return { address: '127.0.0.1', port }
  if (address === '::') return { address: '::1', port }
  return { address, port }
}

/** Those that the listener names, or ports of which it names; all when it names none. */
function bridgesOf({ match, exclude }: ListenerConfig, { bridges }: HostFacts): InterceptedBridge[] {
  const wanted = match.interfaces
  const unwanted = exclude.interfaces
  return bridges.flatMap((bridge) => {
    if (isNamed(unwanted, bridge.name)) return []
    const all = wanted.length === 0 || isNamed(wanted, bridge.name)
    const from = bridge.ports.filter((port) => (all || isNamed(wanted, port)) && !isNamed(unwanted, port))
    return from.length === 0 ? [] : [{ ...bridge, from }]
  })
}

/** `patterns`: names, or beginnings of names with `*`. */
function isNamed(patterns: readonly string[], name: string): boolean {
  return patterns.some((pattern) => (pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name))
}
