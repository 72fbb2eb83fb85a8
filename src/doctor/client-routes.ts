import type { Family } from '../net/address.ts'
import { familySwitch } from '../ruleset/ip-commands.ts'
import { type Finding, ok, wrong } from './finding.ts'
import type { Way } from './ways.ts'

/** The way back to some clients of a listener. */
export interface ClientRoute {
  readonly listener: string
  readonly family: Family
  /** A prefix of the config, or the network that a receiving interface is connected to. */
  readonly sources: string
  readonly way: Way
  readonly receivedBy: readonly string[]
}

export function clientRouteFindings(routes: readonly ClientRoute[]): Finding[] {
  const lost = routes.filter(({ way }) => way.kind === 'none')
  if (lost.length === 0) {
    const shown = routes.flatMap(({ sources, way }) => (way.kind === 'by' ? [`${sources} by ${way.dev}`] : []))
    const all = [...new Set(shown)]
    return all.length === 0
      ? []
      : [ok('route-to-clients', `answers reach ${all.slice(0, 6).join(', ')}${all.length > 6 ? ', …' : ''}`)]
  }
  return lost.map(({ listener, family, sources, way, receivedBy }) =>
    wrong(
      'route-to-clients',
      `no route back to the clients ${sources} of listener ${listener}: ${way.kind === 'none' ? way.why : ''}`,
      `ip ${familySwitch(family)} route add ${sources} via GATEWAY dev ${receivedBy[0] ?? 'DEVICE'}`,
    ),
  )
}
