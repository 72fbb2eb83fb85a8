import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { parseAddress } from '../net/address.ts'
import { findProgram } from './program.ts'

const IP_TIMEOUT_MS = 5_000

export interface HostInterface {
  readonly name: string
  /** Canonical IP literals, without zone. Empty for an interface that is down. */
  readonly addresses: readonly string[]
  /** Up and running with at least one address, as getifaddrs(3) lists it. */
  readonly up: boolean
}

/** A bridge that is up or down, with its ports. */
export interface HostBridge {
  readonly name: string
  /** Its own MAC address, `02:00:00:00:00:01`. */
  readonly mac: string
  readonly ports: readonly string[]
}

/** What the rules of this network namespace depend on, at one moment. */
export interface HostFacts {
  readonly interfaces: readonly HostInterface[]
  readonly bridges: readonly HostBridge[]
  /** As hasIpv6(). */
  readonly ipv6: boolean
  /** sysctl values by dotted key, of those in `SYSCTLS`. */
  readonly sysctls: ReadonlyMap<string, string>
  /** The inode of the network namespace: its identity while it lives. */
  readonly namespace: number
}

/** Those that decide, or that people think decide, about intercepted packets; see docs on rules. */
const SYSCTLS = [
  'net.ipv4.ip_forward',
  'net.ipv6.conf.all.forwarding',
  'net.ipv4.tcp_fwmark_accept',
  'net.ipv4.tcp_migrate_req',
  'net.bridge.bridge-nf-call-iptables',
  'net.bridge.bridge-nf-call-ip6tables',
] as const
const SYSCTLS_BY_INTERFACE = ['rp_filter', 'src_valid_mark'] as const

/**
 * Reads them afresh, about a millisecond. Synchronous on purpose: /proc/sys/net and /proc/thread-self/net are those of
 * the reading thread's network namespace, and libuv's threads may be in another one than the caller.
 */
export function hostFacts(): HostFacts {
  const interfaces = readInterfaces()
  const keys: string[] = [...SYSCTLS]
  for (const name of ['all', ...interfaces.map((found) => found.name)]) {
    for (const key of SYSCTLS_BY_INTERFACE) keys.push(`net.ipv4.conf.${sysctlSegment(name)}.${key}`)
  }
  const sysctls = new Map<string, string>()
  for (const key of keys) {
    const value = readSysctl(key)
    if (value !== undefined) sysctls.set(key, value)
  }
  return {
    interfaces,
    bridges: readBridges(),
    ipv6: hasIpv6(),
    sysctls,
    namespace: netNamespaceInode(),
  }
}

/** False where the kernel has IPv6 switched off (ipv6.disable=1), so that not even ::1 can be bound. */
export function hasIpv6(): boolean {
  return (
    (networkInterfaces().lo ?? []).some(({ address }) => address === '::1') ||
    readSysctl('net.ipv6.conf.lo.disable_ipv6') === '0'
  )
}

/** The inode of the calling thread's network namespace. */
export function netNamespaceInode(): number {
  return statSync('/proc/thread-self/ns/net').ino
}

/** The value of a sysctl by its dotted key; undefined where this kernel has none of that name. */
export function readSysctl(key: string): string | undefined {
  try {
    return readFileSync(sysctlPath(key), 'latin1').trim()
  } catch {
    return undefined
  }
}

/** As sysctl(8): dots part the segments, and a slash in the key stands for a dot in a name (`eth0/100` is eth0.100). */
export function sysctlPath(key: string): string {
  return `/proc/sys/${key.replaceAll(/[./]/g, (sign) => (sign === '.' ? '/' : '.'))}`
}

function sysctlSegment(name: string): string {
  return name.replaceAll('.', '/')
}

function readInterfaces(): HostInterface[] {
  const listed = networkInterfaces()
  return parseInterfaceNames(readFileSync('/proc/thread-self/net/dev', 'latin1')).map((name) => {
    const addresses = (listed[name] ?? [])
      .map(({ address }) => parseAddress(address.split('%')[0]!))
      .filter((address) => address !== undefined)
    return { name, addresses, up: addresses.length > 0 }
  })
}

interface LinkRecord {
  readonly ifname: string
  readonly address?: string
  readonly master?: string
  readonly linkinfo?: { readonly info_kind?: string }
}

/** By `ip`, since /sys is that of the network namespace it was mounted in. None where `ip` does not answer. */
function readBridges(): HostBridge[] {
  try {
    const { stdout } = spawnSync(findProgram('ip'), ['-j', '-d', 'link', 'show'], {
      timeout: IP_TIMEOUT_MS,
      encoding: 'utf8',
    })
    const links = JSON.parse(stdout) as LinkRecord[]
    return links
      .filter(({ linkinfo }) => linkinfo?.info_kind === 'bridge')
      .map(({ ifname, address = '' }) => ({
        name: ifname,
        mac: address,
        ports: links.filter(({ master }) => master === ifname).map((port) => port.ifname),
      }))
  } catch {
    return []
  }
}

/** From the text of /proc/net/dev: two lines of heading, then `name: counters`. */
export function parseInterfaceNames(text: string): string[] {
  return text
    .split('\n')
    .slice(2)
    .map((line) => /^\s*(\S+?):/.exec(line)?.[1])
    .filter((name) => name !== undefined)
}
