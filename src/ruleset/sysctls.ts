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

/**
 * Those of br_netfilter, for the path `bridged`: while they are 1 the inet rules see a frame when it is still in the bridge,
 * and what they take there is lost. `read` says the value of a sysctl. Where br_netfilter is not loaded there are none.
 */
export function neededSysctls(
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
