import { readFileSync } from 'node:fs'
import type { PortRange } from '../net/ports.ts'

const DEFAULT_RANGE: PortRange = { from: 32_768, to: 60_999 } // ip-sysctl(rst), ip_local_port_range

/** The ports that the kernel gives to sockets which do not ask for one; it holds for IPv6 as well. */
export function localPortRange(): PortRange {
  const [from, to] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1').trim().split(/\s+/).map(Number)
  return from === undefined || to === undefined ? DEFAULT_RANGE : { from, to }
}
