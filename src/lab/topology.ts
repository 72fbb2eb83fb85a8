import type { Family } from '../net/address.ts'
import { Host } from './host.ts'

/** Addresses of the three hosts by family: Y is the client, X the proxy (`xy` towards Y, `xz` towards Z), Z the server. */
export type Addresses = Readonly<Record<Family, Readonly<Record<'y' | 'xy' | 'xz' | 'z', string>>>>

/** Addresses of the reference topology. */
export const ADDRESSES = {
  4: { y: '10.0.3.1', xy: '10.0.3.101', xz: '10.0.4.1', z: '10.0.4.2' },
  6: { y: 'fd00:3::1', xy: 'fd00:3::101', xz: 'fd00:4::1', z: 'fd00:4::2' },
} as const

/** Addresses where X is a bridge between Y and Z: one subnet, and one address of X's own. */
export const BRIDGE_ADDRESSES = {
  4: { y: '10.0.9.1', xy: '10.0.9.101', xz: '10.0.9.101', z: '10.0.9.2' },
  6: { y: 'fd00:9::1', xy: 'fd00:9::101', xz: 'fd00:9::101', z: 'fd00:9::2' },
} as const

/** Interface names on the proxy host. */
export const X_TO_Y = 'x-y'
export const X_TO_Z = 'x-z'
export const X_BRIDGE = 'x-br'
/** And on Z. */
export const Z_TO_X = 'z-x'

export interface Topology {
  readonly x: Host
  readonly y: Host
  readonly z: Host
  readonly addresses: Addresses
  close(): Promise<void>
}

/**
 * Raises the reference topology:
 *
 *     Y 10.0.3.1/24, fd00:3::1/64 — 10.0.3.101, fd00:3::101 X 10.0.4.1, fd00:4::1 — 10.0.4.2/24, fd00:4::2/64 Z
 *
 * X forwards (it is a gateway with or without Limpid); Y and Z have their default route through X. Where the kernel has
 * no IPv6 there is IPv4 alone.
 */
export async function raiseTopology(): Promise<Topology> {
  const topology = await raiseHosts(ADDRESSES)
  const { x, y, z } = topology
  const a4 = ADDRESSES[4]
  const a6 = ADDRESSES[6]
  x.setSysctls({ 'net.ipv4.ip_forward': '1', ...(x.hasIpv6 ? { 'net.ipv6.conf.all.forwarding': '1' } : {}) })
  await Promise.all([
    configure(x, [
      ...interfaceLines(X_TO_Y, `${a4.xy}/24`, `${a6.xy}/64`),
      ...interfaceLines(X_TO_Z, `${a4.xz}/24`, `${a6.xz}/64`),
    ]),
    configure(y, endHostLines('y-x', `${a4.y}/24`, `${a6.y}/64`, a4.xy, a6.xy)),
    configure(z, endHostLines(Z_TO_X, `${a4.z}/24`, `${a6.z}/64`, a4.xz, a6.xz)),
  ])
  return topology
}

/**
 * Raises Y and Z in one subnet, with X as the bridge between them:
 *
 *     Y 10.0.9.1/24, fd00:9::1/64 — X 10.0.9.101, fd00:9::101 — 10.0.9.2/24, fd00:9::2/64 Z
 *
 * X does not forward, and leaves the sysctls of br_netfilter as the kernel has them in a new namespace.
 */
export async function raiseBridge(): Promise<Topology> {
  const topology = await raiseHosts(BRIDGE_ADDRESSES)
  const { x, y, z } = topology
  const a4 = BRIDGE_ADDRESSES[4]
  const a6 = BRIDGE_ADDRESSES[6]
  await x.run('ip', ['link', 'add', X_BRIDGE, 'type', 'bridge'])
  await Promise.all([
    configure(x, [
      ...[X_TO_Y, X_TO_Z].map((port) => `link set ${port} master ${X_BRIDGE} up`),
      ...interfaceLines(X_BRIDGE, `${a4.xy}/24`, `${a6.xy}/64`),
    ]),
    configure(y, interfaceLines('y-x', `${a4.y}/24`, `${a6.y}/64`)),
    configure(z, interfaceLines(Z_TO_X, `${a4.z}/24`, `${a6.z}/64`)),
  ])
  return topology
}

/** Three hosts with links between them, which are down. */
async function raiseHosts(addresses: Addresses): Promise<Topology> {
  const [x, y, z] = await Promise.all([Host.create('X'), Host.create('Y'), Host.create('Z')])
  // duplicate address detection would keep every IPv6 address, also link-local, unusable for a second or two
  for (const host of [x, y, z]) if (host.hasIpv6) host.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
  await x.run('ip', ['-batch', '-'], {
    input: [
      `link add ${X_TO_Y} type veth peer name y-x netns ${y.path}`,
      `link add ${X_TO_Z} type veth peer name ${Z_TO_X} netns ${z.path}`,
    ].join('\n'),
  })
  return {
    x,
    y,
    z,
    addresses,
    close: async () => {
      await Promise.all([x.close(), y.close(), z.close()])
    },
  }
}

/** Runs lines of `ip -batch`, those with an IPv6 address only where there is IPv6. */
async function configure(host: Host, lines: readonly string[]): Promise<void> {
  const usable = host.hasIpv6 ? lines : lines.filter((line) => !line.includes(':'))
  await host.run('ip', ['-batch', '-'], { input: usable.join('\n') })
}

function interfaceLines(name: string, v4: string, v6: string): string[] {
  // also without detection the kernel lets an address wait for a moment, unless it is told that there is none
  return [`address add ${v4} dev ${name}`, `address add ${v6} dev ${name} nodad`, `link set ${name} up`]
}

function endHostLines(name: string, v4: string, v6: string, gateway4: string, gateway6: string): string[] {
  return [
    ...interfaceLines(name, v4, v6),
    `route add default via ${gateway4}`,
    `route add default via ${gateway6} dev ${name}`,
  ]
}
