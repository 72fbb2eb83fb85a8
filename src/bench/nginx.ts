import { existsSync } from 'node:fs'
import { ADDRESSES, type Topology } from '../lab/topology.ts'
import { isInstalled } from '../sys/program.ts'
import { IDLE_FLOWS } from './idle-flows.ts'
import { startPeer, writeRunFile } from './on-topology.ts'
import type { Subject } from './suite.ts'

const { xy: PROXY, z: SERVER } = ADDRESSES[4]

/** Where Debian has it. */
const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

/** For SubjectKind.missing. */
export async function noNginx(): Promise<string | undefined> {
  if (isInstalled('nginx') && existsSync(STREAM_MODULE)) return undefined
  return 'nginx with its stream module (Debian: nginx, libnginx-mod-stream)'
}

/** One port whose flows are routed by the name in their ClientHello. */
export interface NginxNames {
  readonly map: string
  readonly pass: string
}

/** The same job: one process, the client's address towards the server, no log; flows that outlast the benchmark. */
function config(protocol: 'tcp' | 'udp', ports: readonly number[], names: NginxNames | undefined): string {
  const listen = protocol === 'udp' ? 'udp rcvbuf=8m' : 'backlog=4096'
  const servers = ports.map(
    (port) => `  server {
    listen ${PROXY}:${port} ${listen};
    ${names === undefined ? `proxy_pass ${SERVER}:${port}` : `ssl_preread on;\n    proxy_pass ${names.pass}`};
  }
`,
  )
  return `load_module ${STREAM_MODULE};
user root;
worker_processes 1;
daemon off;
master_process off;
pid /run/nginx-bench.pid;
error_log stderr crit;
events {
  worker_connections ${2 * IDLE_FLOWS + 256};
  multi_accept on;
}
stream {
  proxy_bind $remote_addr transparent;
  proxy_timeout 1h;
${names?.map ?? ''}${servers.join('')}}
`
}

/** Brings answers to nginx's transparent sockets. Limpid's own rules ask for its mark, which nginx cannot set. */
const RULES = `table ip bench {
  chain prerouting {
    type filter hook prerouting priority mangle
    meta l4proto { tcp, udp } fib daddr type != local socket transparent 1 meta mark set 1 accept
  }
}
`
const ROUTING = 'route add local default dev lo table 100\nrule add fwmark 1 lookup 100\n'

/** nginx's stream proxy in front of ports of Z. It cannot listen transparently, so its clients dial X. */
export async function raiseNginx(
  topology: Topology,
  protocol: 'tcp' | 'udp',
  ports: readonly number[],
  names?: NginxNames,
): Promise<Subject> {
  const file = writeRunFile(
    `nginx-${protocol}${names === undefined ? '' : '-names'}.conf`,
    config(protocol, ports, names),
  )
  const pid = await startPeer(topology, { program: 'nginx', args: ['-c', file], protocol, port: ports[0]! })
  await topology.x.run('nft', ['-f', '-'], { input: RULES })
  await topology.x.run('ip', ['-batch', '-'], { input: ROUTING })
  return { name: 'nginx', topology, pid, dialled: PROXY, close: () => topology.close() }
}
