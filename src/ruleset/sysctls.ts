import type { WorkerCount } from '../config/types.ts'
import type { Interception } from './interception.ts'

/** A sysctl that must change for interception to work on this host, and the value it goes back to. */
export interface SysctlChange {
  readonly key: string
  readonly value: string
  readonly former: string
  readonly why: string
}

const BRIDGE_NETFILTER = {
  4: 'net.bridge.bridge-nf-call-iptables',
  6: 'net.bridge.bridge-nf-call-ip6tables',
} as const

/** Where the kernel has it (Linux 5.14), also for IPv6 (ip-sysctl.rst of the kernel's documentation). */
const MIGRATE_REQUESTS = 'net.ipv4.tcp_migrate_req'

/** All that have to change. `read` says the value of a sysctl. */
export function neededSysctls(
  interceptions: readonly Interception[],
  workers: WorkerCount,
  read: (key: string) => string | undefined,
): SysctlChange[] {
  return [...bridgeSysctls(interceptions, read), ...workerSysctls(interceptions, workers, read)]
}

/** Connections that wait for a worker that ends go to the others, instead of being reset. */
function workerSysctls(
  interceptions: readonly Interception[],
  workers: WorkerCount,
  read: (key: string) => string | undefined,
): SysctlChange[] {
  const former = read(MIGRATE_REQUESTS)
  const isWanted = workers !== 1 && interceptions.some(({ protocol }) => protocol === 'tcp')
  if (!isWanted || former !== '0') return []
  return [
    {
      key: MIGRATE_REQUESTS,
      value: '1',
      former,
      why: 'connections that wait for a worker which ends go to the others',
    },
  ]
}

/**
 * Those of br_netfilter, for the path `bridged`: while they are 1 the inet rules see a frame when it is still in the bridge,
 * and what they take there is lost. Where br_netfilter is not loaded there are none.
 */
function bridgeSysctls(
  interceptions: readonly Interception[],
  read: (key: string) => string | undefined,
): SysctlChange[] {
  const families = new Set(interceptions.filter(({ path }) => path === 'bridged').map(({ family }) => family))
  return [...families].flatMap((family) => {
    const key = BRIDGE_NETFILTER[family]
    const former = read(key)
    if (former === undefined || former === '0') return []
    return [{ key, value: '0', former, why: 'frames are taken up from the bridge before the rules of the inet table' }]
  })
}
