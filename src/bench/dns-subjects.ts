import { fileURLToPath } from 'node:url'
import { ADDRESSES, type Topology, X_TO_Y } from '../lab/topology.ts'
import { isInstalled } from '../sys/program.ts'
import { forwarding, kindOf, type Raise, startLimpid, startPeer, writeRunFile } from './on-topology.ts'
import { DNS_PORT } from './ports.ts'
import type { Subject, SubjectKind } from './suite.ts'

const SERVER_PROCESS = fileURLToPath(new URL('./dns-server-process.js', import.meta.url))
const { xy: PROXY, z: SERVER } = ADDRESSES[4]

/** A forwarder as dnsmasq is: clients ask X, which asks Z from its own address, and has a cache. */
const FORWARDER = `listeners:
  - name: dns
    intercept: none
    protocols: udp
    listen: ["${PROXY}:${DNS_PORT}"]
    source: proxy
    dns:
      upstreams: ["${SERVER}:${DNS_PORT}"]
`

/** Clients ask Z, which sees their addresses; the answers are cached on the way. */
const ON_THE_WAY = `listeners:
  - name: dns
    intercept: tproxy
    protocols: udp
    interfaces: ${X_TO_Y}
    family: 4
    listen: ["127.0.0.1:50080"]
    ports: ${DNS_PORT}
    source: client
    dns: {}
`

/** Datagrams as any others: no cache. */
const RELAY = [
  ...['--intercept', 'tproxy', '--protocol', 'udp', '--from', X_TO_Y, '--family', '4', '--ports', String(DNS_PORT)],
  ...['--source', 'client', '--listen', '127.0.0.1:50080'],
]

export const DNS_SUBJECTS: readonly SubjectKind[] = [
  configured('limpid', ON_THE_WAY, SERVER),
  configured('limpid-none', FORWARDER, PROXY),
  kind('limpid-relay', (topology, env) => startLimpid(topology, RELAY, { name: 'limpid-relay', dialled: SERVER }, env)),
  {
    ...kind('dnsmasq', raiseDnsmasq),
    missing: async () => (isInstalled('dnsmasq') ? undefined : 'dnsmasq (Debian: dnsmasq-base)'),
  },
  kind('forwarding', async (topology) => forwarding(topology)),
]

/** A subject with the server on Z running. */
function kind(name: string, raise: Raise): SubjectKind {
  return kindOf(name, raise, { servers: [SERVER_PROCESS] })
}

/** Limpid with a configuration file. */
function configured(name: string, config: string, dialled: string): SubjectKind {
  return kind(name, (topology, env) =>
    startLimpid(topology, ['--config', writeRunFile(`${name}.yaml`, config)], { name, dialled }, env),
  )
}

/**
 * The same job: one process, a cache of 10,000, no log; more questions at once than the load has. With --no-daemon it stays who
 * it is: in a user namespace it may not drop its groups.
 */
const DNSMASQ = [
  ...['--no-daemon', '--conf-file=/dev/null', '--log-facility=/dev/null', '--no-resolv', '--no-hosts', '--no-poll'],
  ...[`--server=${SERVER}`, `--listen-address=${PROXY}`, '--bind-interfaces', `--port=${DNS_PORT}`],
  ...['--cache-size=10000', '--dns-forward-max=1000', '--pid-file='],
]

async function raiseDnsmasq(topology: Topology): Promise<Subject> {
  const dnsmasq = { program: 'dnsmasq', args: DNSMASQ, protocol: 'udp', port: DNS_PORT, isTalkative: true } as const
  const pid = await startPeer(topology, dnsmasq)
  return { name: 'dnsmasq', topology, pid, dialled: PROXY, close: () => topology.close() }
}
