import { parseConfig } from '../config/parse.ts'
import { quickConfig } from '../config/quick.ts'
import { relayConfig } from '../config/relay.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { serveDns } from './dns-exchange.ts'
import { CONFIG_FILE, type FlowScenario, type Scenario, type ScenarioName } from './scenario.ts'
import { serveTcp } from './tcp-exchange.ts'
import { ADDRESSES } from './topology.ts'
import { serveUdp } from './udp-exchange.ts'

/** Where limpid listens on X, and where Z serves. */
const LISTEN_PORT = 50_080
const SERVER_PORT = 80
const UDP_PORT = 5_300
const UDP_MARK_PORT = 5_301

const OVER_TCP = { kind: 'flow', protocol: 'tcp', serve: serveTcp, serverPort: SERVER_PORT } as const
const FROM_Y_TO_Z = { topology: 'routed', client: 'y', hasSockets: true } as const

/** The four that `limpid lab` runs when it is not told which. */
const FOUR: readonly FlowScenario[] = [
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
  runScenario('udp', 'datagrams: a session for each client and server', {
    flags: () => ['--intercept', 'tproxy', '--protocol', 'udp', '--source', 'client-port'],
    protocol: 'udp',
    port: UDP_PORT,
  }),
  runScenario('udp-mark', 'datagrams, by a mark and a route alone', {
    flags: () => ['--intercept', 'mark', '--protocol', 'udp', '--source', 'client'],
    protocol: 'udp',
    port: UDP_MARK_PORT,
    listensOnDialledPort: true,
  }),
  {
    ...{
      kind: 'spoof',
      name: 'udp-spoof',
      title: "a datagram from an address that is nobody's here",
      topology: 'routed',
    },
    from: (family) => ({ address: family === 4 ? '1.2.3.4' : '2001:db8:1:2::3:4', port: 5_300 }),
    to: (family) => ({ address: family === 4 ? '198.41.0.4' : '2001:db8:198:41::4', port: 53 }),
  },
  dns(),
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

function relayScenario(
  name: ScenarioName,
  title: string,
  { intercepts, clientSource }: { readonly intercepts: boolean; readonly clientSource: boolean },
): FlowScenario {
  const switches = ['-l', ...(intercepts ? ['-t'] : []), ...(clientSource ? ['-T'] : [])]
  return {
    ...{ ...OVER_TCP, ...FROM_Y_TO_Z, name, title },
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

interface RunOptions
  extends Partial<Pick<FlowScenario, 'protocol' | 'topology' | 'client' | 'rewrittenTo' | 'listensOnDialledPort'>> {
  /** Those of `limpid run` that make the scenario; ports and family are added. */
  readonly flags: (family: Family) => readonly string[]
  /** Of Z. */
  readonly port?: number
}

/** `limpid run` with flags, for what is dialled to Z's port. */
function runScenario(
  name: ScenarioName,
  title: string,
  { flags, port = SERVER_PORT, ...options }: RunOptions,
): FlowScenario {
  const all = (family: Family) => [...flags(family), '--ports', String(port), '--family', String(family)]
  return {
    ...{ ...OVER_TCP, ...FROM_Y_TO_Z, name, title, dials: 'server', dialledPort: port, serverPort: port },
    listensOnDialledPort: false,
    ...(options.protocol === 'udp' ? { serve: serveUdp } : {}),
    ...options,
    command: (family) => ['run', ...all(family)],
    config: (family) => {
      const values = all(family)
      const behind = (flag: string) => (values.includes(flag) ? values[values.indexOf(flag) + 1] : undefined)
      const listOf = (flag: string) => (values.includes(flag) ? [behind(flag)!] : undefined)
      return quickConfig({
        intercept: behind('--intercept')!,
        protocol: behind('--protocol'),
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

function portForward(): FlowScenario {
  const file = (family: Family): string =>
    `forwards: [{ name: web, ports: 8080, to: "${formatEndpoint({ address: ADDRESSES[family].z, port: SERVER_PORT })}", health: off }]\n`
  return {
    ...{ ...OVER_TCP, ...FROM_Y_TO_Z, name: 'port-forward', title: 'a port of X that the kernel passes on to Z' },
    ...{ dials: 'proxy', dialledPort: 8080, listensOnDialledPort: false, hasSockets: false },
    command: () => ['run', '-c', CONFIG_FILE],
    file,
    config: (family) => parseConfig(file(family), CONFIG_FILE),
  }
}

function dns(): FlowScenario {
  const [asked, ruled, address, ruledAddress] = ['www.example', 'ads.example', '192.0.2.80', '192.0.2.99']
  const file = `listeners: [{ source: client, dns: { rules: [{ names: ${ruled}, then: answer, answers: { a: ${ruledAddress} } }] } }]\n`
  const questions = [
    { name: asked, address, reachesServer: true },
    { name: asked, address, reachesServer: false }, // known by now
    { name: ruled, address: ruledAddress, reachesServer: false },
  ]
  return {
    ...{ ...FROM_Y_TO_Z, kind: 'flow', name: 'dns', title: 'names: asked of Z, remembered, and answered by a rule' },
    ...{ protocol: 'udp', dials: 'server', dialledPort: 53, serverPort: 53, listensOnDialledPort: false },
    serve: (host, endpoint) => serveDns(host, endpoint, address, questions),
    command: () => ['run', '-c', CONFIG_FILE],
    file: () => file,
    config: () => parseConfig(file, CONFIG_FILE),
  }
}
