import type { ListenerConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { ALL_PORTS, type PortRange, portsContain } from '../net/ports.ts'
import { prefixContains } from '../net/prefix.ts'
import { fits } from './needs.ts'
import type { ProbeAddresses } from './probe-network.ts'

/** How a listener can be reached by packets of ours; or why it cannot. */
export type ProbePlan =
  | { readonly kind: 'probe'; readonly port: number; readonly entry: Entry }
  | { readonly kind: 'cannot'; readonly why: string }

/** By the probe's own link, perhaps with a name that the config wants, or as if by a real one. */
export type Entry = { readonly own: string } | { readonly as: string }

export const CLIENT_LINK = 'limpid-dc'
const NAME_BYTES = 15 // IFNAMSIZ less the final zero
const USUAL_PORTS = [80, 8_080, 443]

/** Whether a packet of this family can fulfil its conditions at all. */
export function takesAnyOf({ match }: ListenerConfig, family: Family): boolean {
  return [match.sources, match.destinations].every(
    (prefixes) => prefixes.length === 0 || prefixes.some((prefix) => prefix.family === family),
  )
}

/** `earlier`: the listeners before it, which would take a packet that they match too. */
export function planProbe(
  listener: ListenerConfig,
  family: Family,
  addresses: ProbeAddresses,
  earlier: readonly ListenerConfig[],
): ProbePlan {
  const { match, exclude, intercept, paths } = listener
  if (intercept === 'none') return cannot('clients dial it themselves')
  if (listener.dns !== undefined) return cannot('it takes DNS alone')
  if (!paths.includes('forwarded')) return cannot(`it takes traffic on the path ${paths.join(' and ')} only`)
  if (match.fwmarks.length > 0) return cannot('it takes packets with fwmarks of others only')
  const { client, server } = addresses
  const sources = match.sources.filter((prefix) => prefix.family === family)
  if (match.sources.length > 0 && !sources.some((prefix) => prefixContains(prefix, client))) {
    return cannot(`it takes packets of given sources only, and the probe's ${client} is none of them`)
  }
  const destinations = match.destinations.filter((prefix) => prefix.family === family)
  if (match.destinations.length > 0 && !destinations.some((prefix) => prefixContains(prefix, server))) {
    return cannot(`it takes packets to given destinations only, and the probe's ${server} is none of them`)
  }
  const out = [...exclude.sources, ...exclude.destinations]
  if (
    out.some(
      (prefix) => prefix.family === family && [client, server].some((address) => prefixContains(prefix, address)),
    )
  ) {
    return cannot(`it excludes the probe's addresses (${client}, ${server})`)
  }
  const port = somePort(listener, earlier)
  if (port === undefined) return cannot('it excludes every port that it takes, or listeners before it take them')
  return { kind: 'probe', port, entry: entryOf(listener) }
}

function somePort({ match, exclude }: ListenerConfig, earlier: readonly ListenerConfig[]): number | undefined {
  const taken = portsOf(match.ports)
  const others = earlier.flatMap((listener) => portsOf(listener.match.ports))
  const edges = taken.flatMap(({ from, to }) => [from, to])
  return [...USUAL_PORTS, ...edges].find(
    (port) => portsContain(taken, port) && !portsContain([...exclude.ports, ...others], port),
  )
}

function portsOf(ports: readonly PortRange[]): readonly PortRange[] {
  return ports.length === 0 ? ALL_PORTS : ports
}

function entryOf({ match, exclude }: ListenerConfig): Entry {
  const names = match.interfaces.length === 0 ? ['*'] : match.interfaces
  const pattern = names.find((name) => name.endsWith('*'))
  if (pattern === undefined) return { as: names[0]! }
  const own = pattern === '*' ? CLIENT_LINK : `${pattern.slice(0, -1)}limpid`.slice(0, NAME_BYTES)
  const exact = names.find((name) => !name.endsWith('*'))
  return exclude.interfaces.some((name) => fits(name, own)) && exact !== undefined ? { as: exact } : { own }
}

function cannot(why: string): ProbePlan {
  return { kind: 'cannot', why }
}
