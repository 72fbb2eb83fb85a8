import type { Family } from '../net/address.ts'
import { hasIpv6 } from '../sys/host.ts'

/** The families that this host has: for what does not say which it wants. */
export function hostFamilies(): readonly Family[] {
  return hasIpv6() ? [4, 6] : [4]
}
