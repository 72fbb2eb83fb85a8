import { fileURLToPath } from 'node:url'
import { ADDRESSES, type Topology, X_TO_Y } from '../lab/topology.ts'
import { type HaproxyJob, noHaproxy, raiseHaproxy } from './haproxy.ts'
import { noNginx, raiseNginx } from './nginx.ts'
import { forwarding, needsSwitch, startLimpid, startPeer } from './on-topology.ts'
import { TCP_PORTS } from './ports.ts'
import { KERNEL, type Subject, type SubjectKind } from './suite.ts'
import { FORWARDED, type Path, PROXIED, tcpKind } from './tcp-path.ts'

const NODE_PIPE = fileURLToPath(new URL('./node-pipe-process.js', import.meta.url))
const INTERCEPTION = [
  ...['--intercept', 'tproxy', '--from', X_TO_Y, '--family', '4', '--ports', TCP_PORTS.join(',')],
  ...['--source', 'client', '--listen', '127.0.0.1:50080'],
]
const { xy: PROXY, z: SERVER } = ADDRESSES[4]

const LIMPID = limpid('limpid')
const HAPROXY = haproxy('haproxy', 1, ['splice-auto'])
const NGINX: SubjectKind = {
  ...tcpKind('nginx', PROXIED, (topology) => raiseNginx(topology, 'tcp', TCP_PORTS)),
  missing: noNginx,
}
const PIPE = tcpKind('node-pipe', { source: 'proxy', isProxied: true }, raiseNodePipe)
const FORWARDING = tcpKind(KERNEL, FORWARDED, async (topology) => forwarding(topology))

/** `haproxy-splice`: HAProxy told to splice always; `haproxy`: splice-auto, which leaves it to HAProxy's own judgement. */
export const TCP_SUBJECTS: readonly SubjectKind[] = [
  LIMPID,
  HAPROXY,
  haproxy('haproxy-splice', 1, ['splice-request', 'splice-response']),
  NGINX,
  PIPE,
  FORWARDING,
]

export const MEMORY_SUBJECTS: readonly SubjectKind[] = [LIMPID, HAPROXY, NGINX, PIPE]

export const WORKERS_SUBJECTS: readonly SubjectKind[] = [
  { ...limpid('limpid-2', { more: ['--workers', '2'] }), missing: needsSwitch('--workers') },
  haproxy('haproxy-2', 2, ['splice-auto']),
]

export const BYPASS_SUBJECTS: readonly SubjectKind[] = [
  {
    ...limpid('limpid-bypass', { more: ['--bypass', `${SERVER}/32`], path: FORWARDED }),
    missing: needsSwitch('--bypass'),
  },
  FORWARDING,
]

interface LimpidJob {
  /** Besides what all have. */
  readonly more?: readonly string[]
  readonly path?: Path
  /** `bin/limpid` of another checkout. */
  readonly program?: string
}

export function limpid(name: string, { more = [], path = PROXIED, ...program }: LimpidJob = {}): SubjectKind {
  const args = [...INTERCEPTION, ...more]
  const as = { name, dialled: SERVER, ...program }
  return tcpKind(name, path, (topology, env) => startLimpid(topology, args, as, env))
}

function haproxy(name: string, threads: number, options: readonly string[]): SubjectKind {
  const job: HaproxyJob = { name, threads, options, interception: INTERCEPTION }
  return { ...tcpKind(name, PROXIED, (topology) => raiseHaproxy(topology, job)), missing: noHaproxy }
}

async function raiseNodePipe(topology: Topology): Promise<Subject> {
  const pid = await startPeer(topology, {
    program: process.execPath,
    args: [NODE_PIPE],
    protocol: 'tcp',
    port: TCP_PORTS[TCP_PORTS.length - 1]!,
  })
  return { name: 'node-pipe', topology, pid, dialled: PROXY, close: () => topology.close() }
}
