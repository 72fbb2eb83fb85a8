import type { Family } from '../net/address.ts'
import { type Finding, note, ok, wrong } from './finding.ts'

export interface Forwarding {
  readonly family: Family
  readonly on: boolean
  /** Packets are passed on to another host by DNAT. */
  readonly needsForwarding: boolean
  /** Destinations are bypassed: forwarded by the kernel instead of taken by a listener. */
  readonly bypasses: boolean
  /** Traffic of this family is taken that others send. */
  readonly taken: boolean
}

const KEYS: Record<Family, string> = { 4: 'net.ipv4.ip_forward', 6: 'net.ipv6.conf.all.forwarding' }

export function forwardingKey(family: Family): string {
  return KEYS[family]
}

/** What is taken needs no forwarding: the route to lo wins before the kernel decides whether to forward. */
export function forwardingFinding({ family, on, needsForwarding, bypasses, taken }: Forwarding): Finding | undefined {
  const key = KEYS[family]
  const cure = `sysctl -w ${key}=1`
  if (on) return ok('forwarding', `IPv${family} is forwarded (${key}=1)`)
  if (needsForwarding) {
    return wrong(
      'forwarding',
      `${key} is 0: IPv${family} packets to another host (forwards) are dropped after DNAT`,
      cure,
    )
  }
  if (bypasses) {
    return wrong('forwarding', `${key} is 0: IPv${family} packets to what is bypassed (bypass) are dropped`, cure)
  }
  if (!taken) return undefined
  return note('forwarding', `${key} is 0: what is not taken (other ports, UDP) does not pass; what is taken does`, cure)
}
