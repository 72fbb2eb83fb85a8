import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { ADDRESSES, type Topology, X_TO_Y } from '../lab/topology.ts'
import { isInstalled } from '../sys/program.ts'
import { forwarding, onTopology, startLimpid } from './on-topology.ts'
import { UDP_PORT } from './ports.ts'
import type { Subject, SubjectKind } from './suite.ts'
import { runUdpLoad } from './udp-load.ts'

const { xy: PROXY, z: SERVER } = ADDRESSES[4]
const FOLDER = '/run/limpid-bench' // /run is the lab's own (see enterNamespaces)
const READY_TIMEOUT_MS = 10_000

const INTERCEPTED = [
  ...['--intercept', 'tproxy', '--protocol', 'udp', '--from', X_TO_Y, '--family', '4', '--ports', String(UDP_PORT)],
  ...['--source', 'client', '--listen', '127.0.0.1:50080'],
]
/** Clients dial X, as they must with nginx. */
const DIALLED = [
  ...['--intercept', 'none', '--protocol', 'udp', '--listen', `${PROXY}:${UDP_PORT}`],
  ...['--to', `${SERVER}:${UDP_PORT}`, '--source', 'client'],
]

export const UDP_SUBJECTS: readonly SubjectKind[] = [
  kind('limpid', (topology, env) => startLimpid(topology, INTERCEPTED, { name: 'limpid', dialled: SERVER }, env)),
  kind('limpid-none', (topology, env) => startLimpid(topology, DIALLED, { name: 'limpid-none', dialled: PROXY }, env)),
  {
    ...kind('nginx', raiseNginx),
    missing: async () =>
      isInstalled('nginx') && existsSync(STREAM_MODULE)
        ? undefined
        : 'nginx with its stream module (Debian: nginx, libnginx-mod-stream)',
  },
  kind('forwarding', async (topology) => forwarding(topology)),
]

function kind(name: string, raise: (topology: Topology, env: Record<string, string>) => Promise<Subject>): SubjectKind {
  return {
    name,
    raise: (env) =>
      onTopology(async (topology) => {
        const subject = await raise(topology, env)
        await verifyPath(subject)
        return subject
      }),
  }
}

/** Where Debian has it. */
const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

/** The same job: one process, the client's address towards the server, no log; sessions that outlast the benchmark. */
const NGINX_CONFIG = `load_module ${STREAM_MODULE};
user root;
worker_processes 1;
daemon off;
master_process off;
pid ${FOLDER}/nginx.pid;
error_log stderr error;
events {
  worker_connections 4096;
  multi_accept on;
}
stream {
  server {
    listen ${PROXY}:${UDP_PORT} udp rcvbuf=8m;
    proxy_pass ${SERVER}:${UDP_PORT};
    proxy_bind $remote_addr transparent;
    proxy_timeout 1h;
  }
}
`

/** Brings answers to nginx's transparent sockets. Limpid's own rules ask for its mark, which nginx cannot set. */
const NGINX_RULES = `table ip bench {
  chain prerouting {
    type filter hook prerouting priority mangle
    meta l4proto udp fib daddr type != local socket transparent 1 meta mark set 1 accept
  }
}
`
const NGINX_ROUTING = 'route add local default dev lo table 100\nrule add fwmark 1 lookup 100\n'

async function raiseNginx(topology: Topology): Promise<Subject> {
  mkdirSync(FOLDER, { recursive: true })
  const file = `${FOLDER}/nginx.conf`
  writeFileSync(file, NGINX_CONFIG)
  const { x } = topology
  const child = x.spawn('nginx', ['-c', file], { stdio: ['ignore', 'inherit', 'inherit'] })
  const deadlineAt = performance.now() + READY_TIMEOUT_MS
  while ((await x.run('ss', ['-Huln', `sport = :${UDP_PORT}`])) === '') {
    if (performance.now() > deadlineAt) throw new LimpidError('LIMPID_LAB', `nginx does not listen on ${UDP_PORT}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await x.run('nft', ['-f', '-'], { input: NGINX_RULES })
  await x.run('ip', ['-batch', '-'], { input: NGINX_ROUTING })
  return { name: 'nginx', topology, pid: child.pid!, dialled: PROXY, close: () => topology.close() }
}

const TRIAL = { sessions: 4, size: 64, burst: 1, window: 4, isEcho: true }
const TRIAL_SECONDS = 0.2

/**
 * Sends some requests, and looks: the server sees the client's address, the client has its replies from where it sent to (both
 * is the load's to verify), and the proxy's host has sockets of these sessions if, and only if, there is a proxy.
 * @throws LimpidError LIMPID_LAB when the figures would be those of something else.
 */
async function verifyPath(subject: Subject): Promise<void> {
  const { name, topology, pid } = subject
  await runUdpLoad(subject, TRIAL, TRIAL_SECONDS)
  const taken = await topology.x.run('ss', ['-Hun', 'state', 'established', `dport = :${UDP_PORT}`])
  if ((taken !== '') !== (pid !== undefined)) {
    throw new LimpidError('LIMPID_LAB', `${name}: traffic goes ${taken === '' ? 'past' : 'through'} a proxy`)
  }
}
