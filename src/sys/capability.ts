import { readFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'

/** Bit numbers in the kernel's capability sets (include/uapi/linux/capability.h); those that Limpid asks about. */
const BITS = {
  CAP_SETPCAP: 8,
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_ADMIN: 21,
} as const

export type CapabilityName = keyof typeof BITS

/** The effective capabilities of this process within its user namespace (proc(5), CapEff). */
export function effectiveCapabilities(): Set<CapabilityName> {
  const status = readFileSync('/proc/self/status', 'latin1')
  return parseCapabilities(status)
}

/** As setpriv(1) writes it: `net_raw`. */
export function shortName(name: CapabilityName): string {
  return name.slice('CAP_'.length).toLowerCase()
}

/** From the text of /proc/PID/status. */
export function parseCapabilities(status: string): Set<CapabilityName> {
  const digits = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'
  const bits = BigInt(`0x${digits}`)
  const names = Object.keys(BITS) as CapabilityName[]
  return new Set(names.filter((name) => ((bits >> BigInt(BITS[name])) & 1n) === 1n))
}

/**
 * Makes sure that this process holds the capabilities; costs a tenth of a millisecond.
 * @param why what they are needed for, to follow "cannot": `install nft rules`.
 * @throws LimpidError LIMPID_CAPABILITY, which names those that are missing.
 */
export function requireCapabilities(
  names: readonly CapabilityName[],
  why: string,
  held: ReadonlySet<CapabilityName> = effectiveCapabilities(),
): void {
  const missing = names.filter((name) => !held.has(name))
  if (missing.length === 0) return
  const short = missing.map((name) => `+${shortName(name)}`).join(',')
  throw new LimpidError(
    'LIMPID_CAPABILITY',
    `cannot ${why}: this process lacks ${missing.join(' and ')} (it runs as uid ${process.getuid?.() ?? '?'})`,
    {
      // ambient, because the programs nft and ip that we start need them too (capabilities(7))
      cure: `run as root, or as USER by: setpriv --reuid=USER --init-groups --inh-caps=${short} --ambient-caps=${short} limpid …`,
    },
  )
}
