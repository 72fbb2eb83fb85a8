import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { run } from '../sys/program.ts'
import { KERNEL, type Subject, type SubjectKind } from './suite.ts'

/** Ports are not to be the limit: a client reuses one as soon as the connection before is gone. The same on every host. */
const SYSCTLS = { 'net.ipv4.ip_local_port_range': '10000 65535', 'net.ipv4.tcp_tw_reuse': '1' } as const
const FOLDER = '/run/limpid-bench' // /run is the lab's own (see enterNamespaces)

/** How long a process may take until it is ready. */
export const READY_TIMEOUT_MS = 10_000

/** What there is beside the subject. */
interface Surroundings {
  /** Programs of ours that are started on Z before. */
  readonly servers?: readonly string[]
  /** Makes sure that its traffic goes the way that is to be measured. @throws LimpidError LIMPID_LAB when it does not. */
  verify?(subject: Subject): Promise<void>
}

/** `env`: more of the environment for Limpid. */
export type Raise = (topology: Topology, env: Record<string, string>) => Promise<Subject>

/** A subject on a topology of its own; where it cannot be raised, nothing of that stays. */
export function kindOf(name: string, raise: Raise, { servers = [], verify }: Surroundings = {}): SubjectKind {
  return {
    name,
    raise: async (env) => {
      const topology = await raiseTopology()
      try {
        const { x, y, z } = topology
        for (const host of [x, y, z]) host.setSysctls(SYSCTLS)
        for (const program of servers) await startServer(topology, program)
        const subject = await raise(topology, env)
        await verify?.(subject)
        return subject
      } catch (error) {
        await topology.close() // with all that runs there
        throw error
      }
    },
  }
}

/** Writes a file for a program that is measured, or that measures; returns its path. */
export function writeRunFile(name: string, text: string): string {
  mkdirSync(FOLDER, { recursive: true })
  writeFileSync(`${FOLDER}/${name}`, text)
  return `${FOLDER}/${name}`
}

/** Starts a server of ours on Z, and waits until it says that it is ready. It ends with the topology. */
async function startServer({ z }: Topology, program: string): Promise<void> {
  const server = z.spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(server.stdout!, 'data', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) })
}

export interface PeerProgram {
  readonly program: string
  readonly args: readonly string[]
  /** What it listens on when it is ready. */
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
  /** Of a program that tells on stderr what it does. */
  readonly isTalkative?: boolean
}

/**
 * Starts another proxy on X, which stays in the foreground, and waits until it listens. Returns its process id; it ends with the
 * topology.
 * @throws LimpidError LIMPID_LAB when it does not come to that.
 */
export async function startPeer({ x }: Topology, peer: PeerProgram): Promise<number> {
  const says = peer.isTalkative === true ? 'ignore' : 'inherit'
  const child = x.spawn(peer.program, peer.args, { stdio: ['ignore', says, says] })
  const list = peer.protocol === 'tcp' ? '-Htln' : '-Huln'
  const deadlineAt = performance.now() + READY_TIMEOUT_MS
  while ((await x.run('ss', [list, `sport = :${peer.port}`])) === '') {
    if (performance.now() > deadlineAt || child.exitCode !== null) {
      throw new LimpidError('LIMPID_LAB', `${peer.program} does not listen on port ${peer.port}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return child.pid!
}

/** No proxy: the kernel forwards. */
export function forwarding(topology: Topology): Subject {
  return {
    name: KERNEL,
    topology,
    pid: undefined,
    dialled: ADDRESSES[4].z,
    close: () => topology.close(),
  }
}

/** `limpid run` on X, without flow lines: no other proxy writes any either. `program`: `bin/limpid` of another checkout. */
export async function startLimpid(
  topology: Topology,
  args: readonly string[],
  { program, ...as }: Pick<Subject, 'name' | 'dialled'> & { readonly program?: string },
  env: Record<string, string>,
): Promise<Subject> {
  const options = program === undefined ? { env } : { env, program }
  const limpid = await LimpidProcess.start(topology.x, ['run', ...args, '--quiet'], options)
  const close = async (): Promise<void> => {
    await limpid.stop()
    await topology.close()
  }
  return { ...as, topology, pid: limpid.pid, close }
}

/** The rules that Limpid would make for itself, for another proxy on X. */
export async function installRules({ x }: Topology, args: readonly string[]): Promise<void> {
  await x.run(process.execPath, [LIMPID_PROGRAM, 'rules', 'install', ...args])
}

/** What is missing where `limpid run` has no such switch; for SubjectKind.missing. */
export function needsSwitch(flag: string): () => Promise<string | undefined> {
  return async () => {
    const { stdout } = await run(process.execPath, [LIMPID_PROGRAM, 'run', '--help'])
    return new RegExp(`^ +(?:-\\w, )?${flag}\\b`, 'm').test(stdout) ? undefined : `limpid run ${flag}`
  }
}
