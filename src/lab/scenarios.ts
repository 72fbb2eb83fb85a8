import { relayConfig } from '../config/relay.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import type { Endpoint, Family } from '../net/address.ts'
import { ADDRESSES } from './topology.ts'

export type ScenarioName = 'S1' | 'S2' | 'S3' | 'S4'

/** One of the four scenarios: what is switched on, and whom the client dials. */
export interface Scenario {
  readonly name: ScenarioName
  readonly title: string
  /** -t: X takes connections that are under way to Z. */
  readonly intercepts: boolean
  /** -T: X dials Z with Y's address and port. */
  readonly clientSource: boolean
}

export const SCENARIOS: readonly Scenario[] = [
  { name: 'S1', title: 'a plain forwarder', intercepts: false, clientSource: false },
  { name: 'S2', title: 'transparent towards the server', intercepts: false, clientSource: true },
  { name: 'S3', title: 'transparent both ways', intercepts: true, clientSource: true },
  { name: 'S4', title: 'transparent towards the client', intercepts: true, clientSource: false },
]

/** Where limpid listens on X, and where Z serves. */
const LISTEN_PORT = 50_080
const SERVER_PORT = 80

/** The scenarios by name, any case; all when `names` is left out or empty. @throws LimpidError LIMPID_USAGE */
export function selectScenarios(names: readonly string[] = []): readonly Scenario[] {
  const wanted = names.flatMap((name) => name.split(',')).map((name) => name.trim().toUpperCase())
  const unknown = wanted.find((name) => !SCENARIOS.some((scenario) => scenario.name === name))
  if (unknown !== undefined) {
    const known = SCENARIOS.map(({ name }) => name).join(', ')
    throw new LimpidError('LIMPID_USAGE', `there is no scenario ${JSON.stringify(unknown)}`, { cure: `use ${known}` })
  }
  return wanted.length === 0 ? SCENARIOS : SCENARIOS.filter(({ name }) => wanted.includes(name))
}

/** What an operator types on X, as arguments of `limpid`. */
export function relayArguments(scenario: Scenario, family: Family): string[] {
  const switches = ['-l', ...(scenario.intercepts ? ['-t'] : []), ...(scenario.clientSource ? ['-T'] : [])]
  return ['relay', ...switches, String(LISTEN_PORT), ADDRESSES[family].z, String(SERVER_PORT)]
}

/** The configuration that `relayArguments` stand for; for predictions. */
export function scenarioConfig(scenario: Scenario, family: Family): Config {
  return relayConfig({
    keepServing: true,
    interceptClients: scenario.intercepts,
    clientSource: scenario.clientSource,
    rules: true,
    localPort: String(LISTEN_PORT),
    host: ADDRESSES[family].z,
    remotePort: String(SERVER_PORT),
  })
}

export function serverEndpoint(family: Family): Endpoint {
  return { address: ADDRESSES[family].z, port: SERVER_PORT }
}

/** Whom the client dials: the server, where X takes its packets on the way; else X. */
export function dialledEndpoint(scenario: Scenario, family: Family): Endpoint {
  return scenario.intercepts ? serverEndpoint(family) : { address: ADDRESSES[family].xy, port: LISTEN_PORT }
}
