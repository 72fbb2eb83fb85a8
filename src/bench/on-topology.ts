import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import type { Subject } from './suite.ts'

/** Ports are not to be the limit: a client reuses one as soon as the connection before is gone. The same on every host. */
const SYSCTLS = { 'net.ipv4.ip_local_port_range': '10000 65535', 'net.ipv4.tcp_tw_reuse': '1' } as const

/** Raises a topology, and a subject on it; where that fails, nothing of it stays. */
export async function onTopology(raise: (topology: Topology) => Promise<Subject>): Promise<Subject> {
  const topology = await raiseTopology()
  try {
    const { x, y, z } = topology
    for (const host of [x, y, z]) host.setSysctls(SYSCTLS)
    return await raise(topology)
  } catch (error) {
    await topology.close() // with all that runs there
    throw error
  }
}

/** No proxy: the kernel forwards. */
export function forwarding(topology: Topology): Subject {
  return {
    name: 'forwarding',
    topology,
    pid: undefined,
    dialled: ADDRESSES[4].z,
    close: () => topology.close(),
  }
}

/** `limpid run` on X, without flow lines: no other proxy writes any either. */
export async function startLimpid(
  topology: Topology,
  args: readonly string[],
  as: Pick<Subject, 'name' | 'dialled'>,
  env: Record<string, string>,
): Promise<Subject> {
  const limpid = await LimpidProcess.start(topology.x, ['run', ...args, '--quiet'], { env })
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
