import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import type { Host } from '../lab/host.ts'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { BULK_PORT, HTTP_PORT } from './ports.ts'

/** `haproxy-splice`: HAProxy told to splice always; `haproxy`: splice-auto, which leaves it to HAProxy's own judgement. */
export type SubjectName = 'limpid' | 'haproxy' | 'haproxy-splice' | 'forwarding'

/** What is measured: a reference topology of its own, with its own rules, so that no other subject's rules weigh on it. */
export interface Subject {
  readonly name: SubjectName
  readonly topology: Topology
  /** The proxy's process; undefined where the kernel alone forwards. */
  readonly pid: number | undefined
  /** Stops the proxy as an operator would, then lets the hosts go. */
  close(): Promise<void>
}

const SERVER_PROCESS = fileURLToPath(new URL('./server-process.js', import.meta.url))
const READY_TIMEOUT_MS = 10_000
const LISTENER = '127.0.0.1:50080'
const INTERCEPTION = [
  ...['--intercept', 'tproxy', '--from', X_TO_Y, '--family', '4', '--ports', `${HTTP_PORT},${BULK_PORT}`],
  ...['--source', 'client', '--listen', LISTENER],
]

const HAPROXY_FOLDER = '/run/limpid-bench' // /run is the lab's own (see enterNamespaces)
const SPLICE_OPTIONS = { haproxy: ['splice-auto'], 'haproxy-splice': ['splice-request', 'splice-response'] } as const

/** The same job: one thread, the client's address towards the server, no log. */
function haproxyConfig(options: readonly string[]): string {
  return `global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
${options.map((option) => `  option ${option}\n`).join('')}frontend intercepted
  bind ${LISTENER} transparent backlog 4096
  default_backend original
backend original
  option transparent
  source 0.0.0.0 usesrc clientip
`
}

/** Ports are not to be the limit: a client reuses one as soon as the connection before is gone. The same on every host. */
export const SYSCTLS = { 'net.ipv4.ip_local_port_range': '10000 65535', 'net.ipv4.tcp_tw_reuse': '1' } as const

/** The subject with its servers running, ready for load. `env`: more of the environment for Limpid. */
export async function raiseSubject(name: SubjectName, env: Record<string, string> = {}): Promise<Subject> {
  const topology = await raiseTopology()
  try {
    const { x, y, z } = topology
    for (const host of [x, y, z]) host.setSysctls(SYSCTLS)
    const server = z.spawn(process.execPath, [SERVER_PROCESS], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(server.stdout!, 'data', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) })
    const subject = await RAISE[name](topology, env)
    await verifyPath(subject)
    return subject
  } catch (error) {
    await topology.close() // with all that runs there
    throw error
  }
}

const RAISE: Readonly<Record<SubjectName, (topology: Topology, env: Record<string, string>) => Promise<Subject>>> = {
  limpid: raiseLimpid,
  haproxy: (topology) => raiseHaproxy('haproxy', topology),
  'haproxy-splice': (topology) => raiseHaproxy('haproxy-splice', topology),
  forwarding: async (topology) => ({
    name: 'forwarding',
    topology,
    pid: undefined,
    close: () => topology.close(),
  }),
}

/**
 * Holds one connection open and looks: the server must see the client's address, and the proxy's host must have an
 * established socket of its own if, and only if, there is a proxy.
 * @throws LimpidError LIMPID_LAB when the figures would be those of something else.
 */
async function verifyPath({ name, topology, pid }: Subject): Promise<void> {
  const { x, y, z } = topology
  const { y: client, z: server } = ADDRESSES[4]
  const socket = y.connect({ address: server, port: BULK_PORT })
  try {
    await once(socket, 'readable', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) })
    const seen = await z.run('ss', ['-Htn', 'state', 'established', `sport = :${BULK_PORT}`])
    if (!seen.includes(`${client}:`)) {
      throw new LimpidError('LIMPID_LAB', `${name}: the server sees ${seen.trim()} instead of ${client}`)
    }
    const taken = await x.run('ss', ['-Htn', 'state', 'established', `sport = :${BULK_PORT}`])
    if ((taken !== '') !== (pid !== undefined)) {
      throw new LimpidError('LIMPID_LAB', `${name}: traffic goes ${taken === '' ? 'past' : 'through'} a proxy`)
    }
  } finally {
    socket.destroy()
  }
}

async function raiseLimpid(topology: Topology, env: Record<string, string>): Promise<Subject> {
  // without flow lines: HAProxy writes none either
  const limpid = await LimpidProcess.start(topology.x, ['run', ...INTERCEPTION, '--quiet'], { env })
  const close = async (): Promise<void> => {
    await limpid.stop()
    await topology.close()
  }
  return { name: 'limpid', topology, pid: limpid.pid, close }
}

/** HAProxy behind the very rules that Limpid installs for itself. */
async function raiseHaproxy(name: 'haproxy' | 'haproxy-splice', topology: Topology): Promise<Subject> {
  mkdirSync(HAPROXY_FOLDER, { recursive: true })
  const file = `${HAPROXY_FOLDER}/${name}.cfg`
  writeFileSync(file, haproxyConfig(SPLICE_OPTIONS[name]))
  const child = topology.x.spawn('haproxy', ['-db', '-q', '-f', file], { stdio: ['ignore', 'inherit', 'inherit'] })
  await untilListening(topology.x)
  await topology.x.run(process.execPath, [LIMPID_PROGRAM, 'rules', 'install', ...INTERCEPTION])
  return { name, topology, pid: child.pid!, close: () => topology.close() }
}

async function untilListening(host: Host): Promise<void> {
  const deadlineAt = performance.now() + READY_TIMEOUT_MS
  while ((await host.run('ss', ['-Htln', `src ${LISTENER}`])) === '') {
    if (performance.now() > deadlineAt) throw new LimpidError('LIMPID_LAB', `haproxy does not listen on ${LISTENER}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
