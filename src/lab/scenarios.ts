import { parseConfig } from '../config/parse.ts'
import { quickConfig } from '../config/quick.ts'
import { relayConfig } from '../config/relay.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { ADDRESSES, type Addresses, BRIDGE_ADDRESSES } from './topology.ts'

export type ScenarioName =
  | 'S1'
  | 'S2'
  | 'S3'
  | 'S4'
  | 'redirect'
  | 'dnat'
  | 'mark'
  | 'local'
  | 'bridge'
  | 'port-forward'

/** One way of standing between Y and Z: how X runs, who dials whom, and what is to be seen on X meanwhile. */
export interface Scenario {
  readonly name: ScenarioName
  readonly title: string
  /** `routed`: X is the router between Y and Z; `bridged`: a bridge. */
  readonly topology: 'routed' | 'bridged'
  /** Y's place: on a host of its own, or a process of X. */
  readonly client: 'y' | 'x'
  /** Whom the client dials: X, or Z, whose packets X takes on the way. */
  readonly dials: 'proxy' | 'server'
  readonly dialledPort: number
  /** What an operator types on X, as arguments of `limpid`; a configuration file is called CONFIG_FILE there. */
  readonly command: (family: Family) => readonly string[]
  /** The configuration file. */
  readonly file?: (family: Family) => string
  /** The configuration that the command stands for; for predictions. */
  readonly config: (family: Family) => Config
  /** X's end of the client's connection, when that is not what the client dialled: its destination was rewritten. */
  readonly rewrittenTo?: (family: Family) => Endpoint
  /** X listens on the port that the client dials; else its packets are intercepted, or it listens there alone. */
  readonly listensOnDialledPort: boolean
  /** Whether the flow has sockets on X; else the kernel passes its packets on. */
  readonly hasSockets: boolean
}

/** Where limpid listens on X, and where Z serves. */
const LISTEN_PORT = 50_080
const SERVER_PORT = 80
/** What the operator calls the configuration file of a scenario that has one. */
export const CONFIG_FILE = 'limpid.yaml'

/** The four that `limpid lab` runs when it is not told which. */
const FOUR: readonly Scenario[] = [
  relayScenario('S1', 'a plain forwarder', { intercepts: false, clientSource: false }),
  relayScenario('S2', 'transparent towards the server', { intercepts: false, clientSource: true }),
  relayScenario('S3', 'transparent both ways', { intercepts: true, clientSource: true }),
  relayScenario('S4', 'transparent towards the client', { intercepts: true, clientSource: false }),
]

export const SCENARIOS: readonly Scenario[] = [
  ...FOUR,
  runScenario('redirect', "rewritten to the receiving interface's own address", {
    flags: () => ['--intercept', 'redirect', '--source', 'client'],
    rewrittenTo: (family) => ({ address: ADDRESSES[family].xy, port: LISTEN_PORT }),
  }),
  runScenario('dnat', "rewritten to the listener's address", {
    flags: (family) => ['--intercept', 'dnat', '--listen', formatEndpoint(dnatListener(family))],
    rewrittenTo: dnatListener,
  }),
  runScenario('mark', 'a mark and a route alone, to a listener on the very port', {
    flags: () => ['--intercept', 'mark', '--source', 'client'],
    listensOnDialledPort: true,
  }),
  runScenario('local', 'what processes of X itself dial', {
    flags: () => ['--intercept', 'tproxy', '--path', 'local'],
    client: 'x',
  }),
  runScenario('bridge', 'frames that cross a bridge', {
    flags: () => ['--intercept', 'tproxy', '--path', 'bridged', '--source', 'client'],
    topology: 'bridged',
  }),
  portForward(),
]

/** The scenarios by name, any case; the first four when `names` is left out or empty. @throws LimpidError LIMPID_USAGE */
export function selectScenarios(names: readonly string[] = []): readonly Scenario[] {
  const wanted = names.flatMap((name) => name.split(',')).map((name) => name.trim())
  const known = new Set(['all', ...SCENARIOS.map(({ name }) => name.toLowerCase())])
  const unknown = wanted.find((name) => !known.has(name.toLowerCase()))
  if (unknown !== undefined) {
    const cure = `use ${SCENARIOS.map(({ name }) => name).join(', ')} or all`
    throw new LimpidError('LIMPID_USAGE', `there is no scenario ${JSON.stringify(unknown)}`, { cure })
  }
  if (wanted.length === 0) return FOUR
  const chosen = new Set(wanted.map((name) => name.toLowerCase()))
  return chosen.has('all') ? SCENARIOS : SCENARIOS.filter(({ name }) => chosen.has(name.toLowerCase()))
}

export function addressesOf({ topology }: Scenario): Addresses {
  return topology === 'bridged' ? BRIDGE_ADDRESSES : ADDRESSES
}

export function serverEndpoint(scenario: Scenario, family: Family): Endpoint {
  return { address: addressesOf(scenario)[family].z, port: SERVER_PORT }
}

/** Whom the client dials: the server, where X takes its packets on the way; else X. */
export function dialledEndpoint(scenario: Scenario, family: Family): Endpoint {
  const { xy, z } = addressesOf(scenario)[family]
  return { address: scenario.dials === 'server' ? z : xy, port: scenario.dialledPort }
}

/** X's end of the client's connection; undefined when X has no part in it but to pass packets on. */
export function acceptedEndpoint(scenario: Scenario, family: Family): Endpoint | undefined {
  if (!scenario.hasSockets) return undefined
  return scenario.rewrittenTo?.(family) ?? dialledEndpoint(scenario, family)
}

function relayScenario(
  name: ScenarioName,
  title: string,
  { intercepts, clientSource }: { readonly intercepts: boolean; readonly clientSource: boolean },
): Scenario {
  const switches = ['-l', ...(intercepts ? ['-t'] : []), ...(clientSource ? ['-T'] : [])]
  return {
    ...{ name, title, topology: 'routed', client: 'y', hasSockets: true },
    ...(intercepts ? { dials: 'server', dialledPort: SERVER_PORT } : { dials: 'proxy', dialledPort: LISTEN_PORT }),
    listensOnDialledPort: !intercepts,
    command: (family) => ['relay', ...switches, String(LISTEN_PORT), ADDRESSES[family].z, String(SERVER_PORT)],
    config: (family) =>
      relayConfig({
        keepServing: true,
        interceptClients: intercepts,
        clientSource,
        rules: true,
        localPort: String(LISTEN_PORT),
        host: ADDRESSES[family].z,
        remotePort: String(SERVER_PORT),
      }),
  }
}

interface RunOptions extends Partial<Pick<Scenario, 'topology' | 'client' | 'rewrittenTo' | 'listensOnDialledPort'>> {
  /** Those of `limpid run` that make the scenario; ports and family are added. */
  readonly flags: (family: Family) => readonly string[]
}

/** `limpid run` with flags, for what is dialled to Z's port. */
function runScenario(name: ScenarioName, title: string, { flags, ...options }: RunOptions): Scenario {
  const all = (family: Family) => [...flags(family), '--ports', String(SERVER_PORT), '--family', String(family)]
  return {
    ...{ name, title, topology: 'routed', client: 'y', dials: 'server', dialledPort: SERVER_PORT },
    ...{ listensOnDialledPort: false, hasSockets: true },
    ...options,
    command: (family) => ['run', ...all(family)],
    config: (family) => {
      const values = all(family)
      const behind = (flag: string) => (values.includes(flag) ? values[values.indexOf(flag) + 1] : undefined)
      const listOf = (flag: string) => (values.includes(flag) ? [behind(flag)!] : undefined)
      return quickConfig({
        intercept: behind('--intercept')!,
        path: listOf('--path'),
        listen: listOf('--listen'),
        source: behind('--source'),
        ports: behind('--ports'),
        family: behind('--family'),
        rules: true,
      })
    },
  }
}

function dnatListener(family: Family): Endpoint {
  return { address: ADDRESSES[family].xy, port: LISTEN_PORT }
}

function portForward(): Scenario {
  const file = (family: Family): string =>
    `forwards: [{ name: web, ports: 8080, to: "${formatEndpoint({ address: ADDRESSES[family].z, port: SERVER_PORT })}", health: off }]\n`
  return {
    ...{ name: 'port-forward', title: 'a port of X that the kernel passes on to Z', topology: 'routed', client: 'y' },
    ...{ dials: 'proxy', dialledPort: 8080, listensOnDialledPort: false, hasSockets: false },
    command: () => ['run', '-c', CONFIG_FILE],
    file,
    config: (family) => parseConfig(file(family), CONFIG_FILE),
  }
}
