import type { Family } from '../net/address.ts'
import { familySwitch } from '../ruleset/ip-commands.ts'
import { type Finding, note, ok, wrong } from './finding.ts'
import { isBridgePort, type Link } from './links.ts'
import type { MainRoute, Way } from './ways.ts'

export interface ServerRoutes {
  readonly family: Family
  /** The default route, or all routes where there is none. */
  readonly routes: readonly MainRoute[]
  readonly links: readonly Link[]
  readonly clientLinks: readonly Link[]
  /** Bridges, when nothing but their frames is taken: clients and servers are both on them. */
  readonly bridges: readonly string[]
  /** Servers that the config or the operator names, and the way to each. */
  readonly named: readonly { readonly server: string; readonly way: Way }[]
}

/** Whether a flow that was taken finds a way on, to a server on another link than the client's. */
export function serverRouteFindings({ family, routes, links, clientLinks, bridges, named }: ServerRoutes): Finding[] {
  const at = `IPv${family}`
  const findings: Finding[] = []
  for (const { server, way } of named) {
    if (way.kind !== 'none') continue
    findings.push(
      wrong(
        'route-to-servers',
        `no route to the server ${server}: ${way.why}`,
        addRoute(family, server, spare(links, clientLinks, routes)),
      ),
    )
  }
  if (findings.length > 0) return findings
  const clients = new Set(clientLinks.map(({ name }) => name))
  const anyLink = links.every(({ name }) => name === 'lo' || clients.has(name))
  const reached = new Set(routes.map(({ dev }) => dev))
  const dead = spare(links, clientLinks, routes)
  const byDefault = routes.find(({ destination }) => destination === 'default')
  if (byDefault !== undefined) return [ok('route-to-servers', `${at} has a default route, by ${byDefault.dev}`)]
  const across = routes.filter(({ dev }) => bridges.includes(dev))
  if (across.length > 0) {
    const shown = across.slice(0, 4).map(({ destination, dev }) => `${destination} by the bridge ${dev}`)
    return [ok('route-to-servers', `${at} leads to ${shown.join(', ')}${across.length > 4 ? ', …' : ''}`)]
  }
  if (routes.length === 0) {
    return [
      note(
        'route-to-servers',
        `${at} has no route at all: nobody can come or be dialled by it`,
        addRoute(family, 'default', dead),
      ),
    ]
  }
  const beyond = routes.filter(({ dev }) => anyLink || !clients.has(dev))
  if (anyLink ? reached.size > 1 : beyond.length > 0) {
    const shown = beyond.slice(0, 4).map(({ destination, dev }) => `${destination} by ${dev}`)
    return [
      ok('route-to-servers', `${at} has no default route, but ${shown.join(', ')}${beyond.length > 4 ? ', …' : ''}`),
    ]
  }
  const only = routes.slice(0, 4).map(({ destination, dev }) => `${destination} by ${dev}`)
  const what = `no ${at} route leads on to servers, only ${only.join(', ')}: flows are taken and then reset`
  return [wrong('route-to-servers', what, addRoute(family, 'default', dead))]
}

/** A link that leads to no network of the family, and could. */
function spare(links: readonly Link[], clientLinks: readonly Link[], routes: readonly MainRoute[]): string {
  const usable = links.filter((link) => link.name !== 'lo' && !isBridgePort(link, links))
  const unused = usable.filter(({ name, up }) => up && !routes.some(({ dev }) => dev === name))
  const server = unused.find((link) => !clientLinks.includes(link)) ?? unused[0] ?? usable[0]
  return server?.name ?? 'DEVICE'
}

function addRoute(family: Family, to: string, dev: string): string {
  return `ip ${familySwitch(family)} route add ${to} via GATEWAY dev ${dev} (or without via, for a network on that link)`
}
