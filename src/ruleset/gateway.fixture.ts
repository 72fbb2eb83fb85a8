import { writeFileSync } from 'node:fs'
import { Server, type Socket } from 'node:net'
import { DEFAULT_LIMITS, DEFAULT_RULES, DEFAULT_TIMEOUTS, DEFAULT_WORKERS, MATCH_ANY } from '../config/defaults.ts'
import { NO_POLICY } from '../config/policy.ts'
import type { Config, ListenerConfig } from '../config/types.ts'
import { Host } from '../lab/host.ts'
import { ADDRESSES } from '../lab/topology.ts'
import { PATIENCE_MS } from '../lab/traffic.fixture.ts'
import { type Endpoint, familyOf, formatEndpoint } from '../net/address.ts'
import { sysctlPath } from '../sys/host.ts'
import { setIpv6Only, setReuseAddress, setTransparent } from '../sys/options.ts'
import { mustRun } from '../sys/program.ts'
import { bindSocket, listenSocket, openTcp } from '../sys/socket.ts'

export const SERVER = { 4: ADDRESSES[4].z, 6: ADDRESSES[6].z } as const
export const CLIENT = { 4: ADDRESSES[4].y, 6: ADDRESSES[6].y } as const
export const PROXY = { 4: ADDRESSES[4].xy, 6: ADDRESSES[6].xy } as const
export const FAMILIES = [4, 6] as const

/** For an answer that must not come. */
export const SILENT_MS = 700 // a packet that is dropped is sent again after a second

/** A tproxy listener that takes everything of both families, with some of its keys changed. */
export function listener(changes: Partial<ListenerConfig> = {}): ListenerConfig {
  return {
    name: 'all',
    intercept: 'tproxy',
    paths: ['forwarded'],
    protocols: ['tcp'],
    listen: [
      { address: '127.0.0.1', port: 50_080 },
      { address: '::1', port: 50_080 },
    ],
    families: [4, 6],
    match: MATCH_ANY,
    exclude: MATCH_ANY,
    addressedHere: false,
    source: 'proxy',
    to: undefined,
    onDown: 'open',
    fastOpen: false,
    acceptProxyProtocol: undefined,
    timeouts: DEFAULT_TIMEOUTS,
    dns: undefined,
    ...changes,
  }
}

export function configOf(...listeners: ListenerConfig[]): Config {
  return {
    listeners,
    forwards: [],
    bypass: [],
    workers: DEFAULT_WORKERS,
    policy: NO_POLICY,
    ioUring: true,
    limits: DEFAULT_LIMITS,
    rules: DEFAULT_RULES,
  }
}

export function setSysctl(key: string, value: string): void {
  writeFileSync(sysctlPath(key), value)
}

/** The two neighbours of this process's own network namespace, which is the gateway between them and forwards. */
export interface Gateway {
  readonly y: Host
  readonly z: Host
  close(): Promise<void>
}

/** Y 10.0.3.1 — 10.0.3.101 (y) here (z) 10.0.4.1 — 10.0.4.2 Z; on every port from 80 to 81 Z answers `server saw PEER`. */
export async function raiseGateway(): Promise<Gateway> {
  const [y, z] = await Promise.all([Host.create('Y'), Host.create('Z')])
  const here = ['link set lo up']
  // duplicate address detection would keep IPv6 neighbours silent for a second
  setSysctl('net.ipv6.conf.default.accept_dad', '0')
  for (const host of [y, z]) host.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
  for (const [name, host, net] of [
    ['y', y, 3],
    ['z', z, 4],
  ] as const) {
    const [mine, theirs] = net === 3 ? ['101', '1'] : ['1', '2']
    await mustRun('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'x', 'netns', host.path])
    here.push(`address add 10.0.${net}.${mine}/24 dev ${name}`, `address add fd00:${net}::${mine}/64 dev ${name} nodad`)
    here.push(`link set ${name} up`)
    const there = [
      `address add 10.0.${net}.${theirs}/24 dev x`,
      `address add fd00:${net}::${theirs}/64 dev x nodad`,
      'link set x up',
      `route add default via 10.0.${net}.${mine}`,
      `route add default via fd00:${net}::${mine} dev x`,
    ]
    await host.run('ip', ['-batch', '-'], { input: there.join('\n') })
  }
  await mustRun('ip', ['-batch', '-'], { input: here.join('\n') })
  setSysctl('net.ipv4.ip_forward', '1')
  setSysctl('net.ipv6.conf.all.forwarding', '1')
  const servers = [80, 81].flatMap((port) => ['0.0.0.0', '::'].map((address) => z.listen({ address, port })))
  for (const server of servers) {
    server.on('connection', (socket) => {
      socket.on('error', () => {})
      socket.end(`server saw ${formatEndpoint(peerOf(socket))}`)
    })
  }
  for (const family of FAMILIES) await untilAnswers(() => y.connect({ address: SERVER[family], port: 80 }))
  return {
    y,
    z,
    close: async () => {
      for (const server of servers) server.close()
      await Promise.all([y.close(), z.close()])
    },
  }
}

/** A transparent listener here, which answers `intercepted DESTINATION`. */
export function listenTransparent(endpoint: Endpoint): Server {
  const family = familyOf(endpoint.address)
  const fd = openTcp(family)
  setReuseAddress(fd)
  setTransparent(fd, family)
  if (family === 6) setIpv6Only(fd)
  bindSocket(fd, endpoint)
  listenSocket(fd, 64)
  const server = new Server((socket) => {
    socket.on('error', () => {})
    socket.end(`intercepted ${formatEndpoint({ address: socket.localAddress!, port: socket.localPort! })}`)
  })
  return server.listen({ fd })
}

/** What the other end says until it closes; or the errno's name; or `silence` when nothing comes. */
export function ask(socket: Socket, waitMs = PATIENCE_MS): Promise<string> {
  return new Promise((resolve) => {
    let said = ''
    const settle = (answer: string) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => settle('silence'), waitMs)
    socket.on('data', (bytes) => {
      said += bytes.toString()
    })
    socket.once('end', () => settle(said))
    socket.once('error', (error: NodeJS.ErrnoException) => settle(error.code ?? error.message))
  })
}

/** The first packets after links come up may be lost, while neighbours do not know each other yet. */
async function untilAnswers(dial: () => Socket): Promise<void> {
  for (let i = 0; i < 10; i++) if ((await ask(dial(), SILENT_MS)).startsWith('server saw')) return
  throw new Error('the server does not answer through the gateway')
}

function peerOf(socket: Socket): Endpoint {
  const { remoteAddress, remotePort } = socket
  return { address: remoteAddress ?? '', port: remotePort ?? 0 }
}

/** What a test installed; disposing takes it away. */
export interface InstalledRules extends AsyncDisposable {
  /** As when Limpid dies: only what outlives it stays. */
  removeMain(): Promise<void>
}
