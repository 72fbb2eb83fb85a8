import { ADDRESSES, type Topology } from '../lab/topology.ts'
import { isInstalled } from '../sys/program.ts'
import { IDLE_FLOWS } from './idle-flows.ts'
import { installRules, startPeer, writeRunFile } from './on-topology.ts'
import type { Subject } from './suite.ts'

const LISTENER = { address: '127.0.0.1', port: 50_080 }
const MAX_PIPES = 256 // two of each connection that splices; by default a quarter of the connections has them

export interface HaproxyJob {
  readonly name: string
  readonly threads: number
  /** Such as `splice-auto`. */
  readonly options: readonly string[]
  /** More lines of the frontend, and backends besides the one for original destinations. */
  readonly frontend?: readonly string[]
  readonly backends?: readonly string[]
  /** What `limpid rules install` is told. */
  readonly interception: readonly string[]
}

/** For SubjectKind.missing. */
export async function noHaproxy(): Promise<string | undefined> {
  return isInstalled('haproxy') ? undefined : 'HAProxy (Debian: haproxy)'
}

/** The same job: the client's address towards the server, no log; flows that outlast the benchmark. */
function config({ threads, options, frontend = [], backends = [] }: HaproxyJob): string {
  return `global
  nbthread ${threads}
  maxconn ${IDLE_FLOWS + 64}
  maxpipes ${MAX_PIPES}
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
${options.map((option) => `  option ${option}\n`).join('')}frontend intercepted
  bind ${LISTENER.address}:${LISTENER.port} transparent backlog 4096
${frontend.map((line) => `  ${line}\n`).join('')}  default_backend original
backend original
  option transparent
  source 0.0.0.0 usesrc clientip
${backends.join('')}`
}

/** HAProxy behind the very rules that Limpid installs for itself. */
export async function raiseHaproxy(topology: Topology, job: HaproxyJob): Promise<Subject> {
  const file = writeRunFile(`${job.name}.cfg`, config(job))
  const pid = await startPeer(topology, {
    program: 'haproxy',
    args: ['-db', '-q', '-f', file],
    protocol: 'tcp',
    port: LISTENER.port,
  })
  await installRules(topology, job.interception)
  return { name: job.name, topology, pid, dialled: ADDRESSES[4].z, close: () => topology.close() }
}
