import type { Config, ListenerConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { formatPrefix, type Prefix } from '../net/prefix.ts'
import { readSysctl } from '../sys/host.ts'
import type { ClientRoute } from './client-routes.ts'
import type { Examined } from './examined.ts'
import { isBridgePort, type Link } from './links.ts'
import { clientLinks } from './needs.ts'
import type { SourceValidation } from './source-validation.ts'
import { readTcpCounters } from './tcp-counters.ts'
import { connectedNetworks, wayTo } from './ways.ts'

const MAX_PREFIXES = 16 // of each listener: a list of thousands is not asked about one by one

/** The ways back to the clients that the config names, else to the networks of the receiving interfaces. */
export async function readClientRoutes(config: Config, links: readonly Link[]): Promise<readonly ClientRoute[]> {
  const taking = config.listeners.filter(({ intercept, paths }) => intercept !== 'none' && paths.includes('forwarded'))
  const found = await Promise.all(
    taking.flatMap((listener) =>
      listener.families.map((family) =>
        routesOf(
          listener,
          family,
          clientLinks(listener, links).filter((link) => !isBridgePort(link, links)),
        ),
      ),
    ),
  )
  return found.flat()
}

async function routesOf(listener: ListenerConfig, family: Family, receiving: readonly Link[]): Promise<ClientRoute[]> {
  const about = { listener: listener.name, family, receivedBy: receiving.map(({ name }) => name) }
  const prefixes = listener.match.sources.filter((prefix) => prefix.family === family && prefix.length > 0)
  if (prefixes.length > 0) {
    return await Promise.all(
      prefixes.slice(0, MAX_PREFIXES).map(async (prefix) => ({
        ...about,
        sources: formatPrefix(prefix),
        way: await wayTo({ to: someHost(prefix) }),
      })),
    )
  }
  const connected = await connectedNetworks(family)
  return receiving.flatMap(({ name }) =>
    connected
      .filter(({ dev }) => dev === name)
      .map(({ destination }) => ({
        ...about,
        sources: destination,
        way: { kind: 'by' as const, dev: name, via: undefined },
      })),
  )
}

/** An address in the prefix that is a host's, not the network's. */
function someHost({ address, length, family }: Prefix): string {
  if (length >= (family === 4 ? 31 : 127)) return address
  if (family === 6) return address.endsWith('::') ? `${address}1` : address
  return address.replace(/\d+$/, (last) => `${Number(last) + 1}`)
}

/** What rp_filter and src_valid_mark do to packets of our flows: they come in by all links, from clients and servers. */
export async function sourceValidation(examined: Examined): Promise<SourceValidation> {
  const routes = (await examined.clientRoutes()).filter(({ family }) => family === 4)
  const { plan, links } = examined
  return {
    value: (name, key) => Number(readSysctl(`net.ipv4.conf.${name.replaceAll('.', '/')}.${key}`) ?? 0),
    links: links.filter(({ name, up }) => up && name !== 'lo'),
    astray: ({ name }) =>
      routes.flatMap(({ sources, way, receivedBy }) =>
        way.kind === 'by' && way.dev !== name && receivedBy.includes(name) && receivedBy.length === 1
          ? [{ sources, routedBy: way.dev }]
          : [],
      ),
    dropped: readTcpCounters().reversePath,
    detour: plan.ipRules.length === 0 || hasDetour(examined),
  }
}

/** Whether every planned rule that looks at `iif lo` is there, or none of ours is: then none is missing either. */
function hasDetour({ plan, rulesAreThere, ipRules }: Examined): boolean {
  if (!rulesAreThere) return true
  const wanted = plan.ipRules.filter(({ iif, family }) => iif === 'lo' && family === 4)
  return wanted.every(({ priority }) =>
    ipRules.some((rule) => rule.ours && rule.family === 4 && rule.priority === priority),
  )
}
