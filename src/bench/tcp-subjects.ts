import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import type { Host } from '../lab/host.ts'
import { ADDRESSES, type Topology, X_TO_Y } from '../lab/topology.ts'
import { isInstalled } from '../sys/program.ts'
import { forwarding, installRules, onTopology, startLimpid } from './on-topology.ts'
import { BULK_PORT, HTTP_PORT } from './ports.ts'
import type { Subject, SubjectKind } from './suite.ts'

const SERVER_PROCESS = fileURLToPath(new URL('./server-process.js', import.meta.url))
const READY_TIMEOUT_MS = 10_000
const LISTENER = '127.0.0.1:50080'
const INTERCEPTION = [
  ...['--intercept', 'tproxy', '--from', X_TO_Y, '--family', '4', '--ports', `${HTTP_PORT},${BULK_PORT}`],
  ...['--source', 'client', '--listen', LISTENER],
]
const SERVER = ADDRESSES[4].z

const HAPROXY_FOLDER = '/run/limpid-bench' // /run is the lab's own (see enterNamespaces)

/** `haproxy-splice`: HAProxy told to splice always; `haproxy`: splice-auto, which leaves it to HAProxy's own judgement. */
export const TCP_SUBJECTS: readonly SubjectKind[] = [
  kind('limpid', (topology, env) => startLimpid(topology, INTERCEPTION, { name: 'limpid', dialled: SERVER }, env)),
  { ...kind('haproxy', (topology) => raiseHaproxy('haproxy', ['splice-auto'], topology)), missing: noHaproxy },
  {
    ...kind('haproxy-splice', (topology) =>
      raiseHaproxy('haproxy-splice', ['splice-request', 'splice-response'], topology),
    ),
    missing: noHaproxy,
  },
  kind('forwarding', async (topology) => forwarding(topology)),
]

async function noHaproxy(): Promise<string | undefined> {
  return isInstalled('haproxy') ? undefined : 'HAProxy (Debian: haproxy)'
}

/** A subject with the servers on Z running. */
function kind(name: string, raise: (topology: Topology, env: Record<string, string>) => Promise<Subject>): SubjectKind {
  return {
    name,
    raise: (env) =>
      onTopology(async (topology) => {
        const server = topology.z.spawn(process.execPath, [SERVER_PROCESS], { stdio: ['ignore', 'pipe', 'inherit'] })
        await once(server.stdout!, 'data', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) })
        const subject = await raise(topology, env)
        await verifyPath(subject)
        return subject
      }),
  }
}

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

/** HAProxy behind the very rules that Limpid installs for itself. */
async function raiseHaproxy(name: string, options: readonly string[], topology: Topology): Promise<Subject> {
  mkdirSync(HAPROXY_FOLDER, { recursive: true })
  const file = `${HAPROXY_FOLDER}/${name}.cfg`
  writeFileSync(file, haproxyConfig(options))
  const child = topology.x.spawn('haproxy', ['-db', '-q', '-f', file], { stdio: ['ignore', 'inherit', 'inherit'] })
  await untilListening(topology.x)
  await installRules(topology, INTERCEPTION)
  return { name, topology, pid: child.pid!, dialled: SERVER, close: () => topology.close() }
}

async function untilListening(host: Host): Promise<void> {
  const deadlineAt = performance.now() + READY_TIMEOUT_MS
  while ((await host.run('ss', ['-Htln', `src ${LISTENER}`])) === '') {
    if (performance.now() > deadlineAt) throw new LimpidError('LIMPID_LAB', `haproxy does not listen on ${LISTENER}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/**
 * Holds one connection open and looks: the server must see the client's address, and the proxy's host must have an
 * established socket of its own if, and only if, there is a proxy.
 * @throws LimpidError LIMPID_LAB when the figures would be those of something else.
 */
async function verifyPath({ name, topology, pid }: Subject): Promise<void> {
  const { x, y, z } = topology
  const { y: client } = ADDRESSES[4]
  const socket = y.connect({ address: SERVER, port: BULK_PORT })
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
