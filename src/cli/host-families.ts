import type { Family } from '../net/address.ts'
import { hostFacts } from '../sys/host.ts'

/** The families that this host has: for what does not say which it wants. */
export function hostFamilies(): readonly Family[] {
  return hostFacts().ipv6 ? [4, 6] : [4]
}
