import type { Config } from '../config/types.ts'
import { arrivesRewritten, arrivesUntouched } from '../proxy/arrival.ts'
import { markOf } from '../proxy/bound-sockets.ts'
import { type CapabilityName, effectiveCapabilities, shortName } from '../sys/capability.ts'
import { findProgram } from '../sys/program.ts'

const MARKS_BY_RAW = { major: 5, minor: 17 } // Linux, net/core/sock.c: sockopt_ns_capable(CAP_NET_RAW) for SO_MARK

/** What a worker needs once its sockets are bound: for TCP without ports of the client's, CAP_NET_RAW alone. `kernel`: uname -r. */
export function workerCapabilities(config: Config, kernel: string): CapabilityName[] {
  const { listeners } = config
  const isMarked = markOf(config) !== 0
  const hasUdp = listeners.filter(({ protocols }) => protocols.includes('udp'))
  const needed = new Set<CapabilityName>()
  // foreign addresses (IP_TRANSPARENT), raw sockets of answers, marks
  if (isMarked) needed.add('CAP_NET_RAW')
  // ports below 1024 that are not ours: answers come from the server's port, and the client's own may be one
  const hasLowPorts =
    hasUdp.some(({ intercept }) => arrivesUntouched(intercept)) ||
    listeners.some(({ source }) => source === 'client-port')
  if (hasLowPorts) needed.add('CAP_NET_BIND_SERVICE')
  // conntrack answers nobody else (nfnetlink_rcv, net/netfilter/nfnetlink.c)
  if (hasUdp.some(({ intercept }) => arrivesRewritten(intercept))) needed.add('CAP_NET_ADMIN')
  if (isMarked && isBefore(kernel, MARKS_BY_RAW)) needed.add('CAP_NET_ADMIN')
  return [...needed]
}

function isBefore(kernel: string, { major, minor }: { readonly major: number; readonly minor: number }): boolean {
  const [, itsMajor, itsMinor] = /^(\d+)\.(\d+)/.exec(kernel) ?? []
  return Number(itsMajor) < major || (Number(itsMajor) === major && Number(itsMinor) < minor)
}

/**
 * setpriv(1) and its arguments, for a program that holds these capabilities and no others from its first instruction,
 * all its threads, and can never gain any (no_new_privs); it is killed when its parent dies.
 * @throws LimpidError LIMPID_PROGRAM without setpriv.
 */
export function confinement(
  capabilities: readonly CapabilityName[],
  held: ReadonlySet<CapabilityName> = effectiveCapabilities(),
): [string, ...string[]] {
  const kept = ['-all', ...capabilities.filter((name) => held.has(name)).map((name) => `+${shortName(name)}`)].join(',')
  return [
    findProgram('setpriv'),
    '--no-new-privs',
    '--pdeathsig=KILL',
    `--inh-caps=${kept}`,
    `--ambient-caps=${kept}`,
    // root gets all of this set at exec(2); somebody else cannot change it, and gets the ambient ones alone
    ...(held.has('CAP_SETPCAP') ? [`--bounding-set=${kept}`] : []),
  ]
}
