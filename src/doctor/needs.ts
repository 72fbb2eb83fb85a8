import type { Config, ListenerConfig } from '../config/types.ts'
import { type Family, familyOf } from '../net/address.ts'
import type { CapabilityName } from '../sys/capability.ts'
import type { Link } from './links.ts'

/** What a config asks of its host. */
export interface Needs {
  readonly families: readonly Family[]
  /** Families of the packets that are passed on to another host by DNAT. */
  readonly forwardedFamilies: readonly Family[]
  /** Families of destinations that the kernel forwards instead of a listener. */
  readonly bypassedFamilies: readonly Family[]
  readonly rules: boolean
  readonly capabilities: readonly CapabilityName[]
  /** Frames that cross a bridge of this host are taken. */
  readonly bridged: boolean
}

export function needsOf(config: Config): Needs {
  const taking = config.listeners.filter(({ intercept }) => intercept !== 'none')
  const foreign = config.listeners.some(({ source }) => source !== 'proxy')
  const rules = config.rules.install && (taking.length > 0 || foreign || config.forwards.length > 0)
  const transparent = taking.some(({ intercept }) => intercept === 'tproxy' || intercept === 'mark')
  return {
    families: [...new Set(config.listeners.flatMap(({ families }) => families))].sort(),
    forwardedFamilies: [...new Set(config.forwards.map(({ to }) => familyOf(to.address)))].sort(),
    bypassedFamilies: taking.some(({ paths }) => paths.includes('forwarded'))
      ? [...new Set(config.bypass.map(({ family }) => family))].sort()
      : [],
    rules,
    capabilities: [
      ...(rules ? (['CAP_NET_ADMIN'] as const) : []),
      ...(foreign || transparent || taking.length > 0 ? (['CAP_NET_RAW'] as const) : []),
    ],
    bridged: taking.some(({ paths }) => paths.includes('bridged')),
  }
}

/** The links on which a listener takes traffic that others send: all but lo when it names none. */
export function clientLinks(listener: ListenerConfig, links: readonly Link[]): Link[] {
  const { interfaces } = listener.match
  return links.filter(
    ({ name }) =>
      name !== 'lo' &&
      (interfaces.length === 0 || interfaces.some((pattern) => fits(pattern, name))) &&
      !listener.exclude.interfaces.some((pattern) => fits(pattern, name)),
  )
}

/** The links on which any listener takes traffic. */
export function allClientLinks(config: Config, links: readonly Link[]): Link[] {
  const taken = new Set(
    config.listeners
      .filter(({ intercept }) => intercept !== 'none')
      .flatMap((listener) => clientLinks(listener, links)),
  )
  return links.filter((link) => taken.has(link))
}

/** As nft matches names: an asterisk at the end stands for any rest. */
export function fits(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name
}
