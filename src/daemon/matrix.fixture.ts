import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BackendChoice, Intercept, Path } from '../config/types.ts'
import type { Host } from '../lab/host.ts'
import type { LimpidProcess } from '../lab/limpid-process.ts'
import type { Topology } from '../lab/topology.ts'
import { patternHash, type Received, receiveAll, sendPattern, serve, sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint, sameEndpoint } from '../net/address.ts'

export type Mode = Exclude<Intercept, 'none'>
export type BackendName = Exclude<BackendChoice, 'auto'>

export const MODES: readonly Mode[] = ['tproxy', 'redirect', 'dnat', 'mark']
export const PATHS: readonly Path[] = ['forwarded', 'local', 'bridged']
export const BACKENDS: readonly BackendName[] = ['nft', 'iptables']
export const FAMILIES: readonly Family[] = [4, 6]

/** Modes that share a ruleset: conntrack, which the second two bring, must not be there for the first two. */
export const GROUPS: readonly (readonly Mode[])[] = [
  ['tproxy', 'mark'],
  ['redirect', 'dnat'],
]

/** For what must arrive: a slow machine is no failure. */
export const ARRIVES_MS = 10_000

const SIZE = 200_000
const ATTEMPT_MS = 250 // longer than an answer takes, shorter than the second after which a lost SYN is sent again
const CLIENT_SEED = 5
const SERVER_SEED = 9

/** What is tried of a mode, path and backend at once: a listener for each, told apart by their ports. */
const LISTENERS = [
  { name: 'keeps', source: 'client', onDown: 'open' },
  { name: 'hides', source: 'proxy', onDown: 'open' },
  { name: 'closed', source: 'proxy', onDown: 'closed' },
  { name: 'same-port', source: 'client-port', onDown: 'closed' },
] as const
export type ListenerName = (typeof LISTENERS)[number]['name']

/** A path and backend with the modes whose listeners are in one ruleset. */
export interface Cell {
  readonly modes: readonly Mode[]
  readonly path: Path
  readonly backend: BackendName
  readonly topology: Topology
}

/** A listener of one mode. */
export interface Tried {
  readonly mode: Mode
  readonly name: ListenerName
  readonly port: number
  readonly source: (typeof LISTENERS)[number]['source']
  readonly onDown: (typeof LISTENERS)[number]['onDown']
}

export function listenersOf(modes: readonly Mode[]): Tried[] {
  return modes.flatMap((mode) => LISTENERS.map((tried) => ({ ...tried, mode, port: portOf(mode, tried.name) })))
}

/** The original destination's port by which a listener of the matrix is told from the others. */
export function portOf(mode: Mode, name: ListenerName): number {
  return 80 + 10 * MODES.indexOf(mode) + LISTENERS.findIndex((tried) => tried.name === name)
}

/** A configuration file with the listeners of a cell, which goes with `folder`. */
export function configFile({ modes, path, backend, topology }: Cell, folder: string): string {
  const listeners = listenersOf(modes).map((tried) => {
    const { mode, name, port, source, onDown } = tried
    return {
      ...{ name: `${mode}-${name}`, intercept: mode, paths: [path], ports: [port], source, onDown },
      ...listenOf(tried, topology),
    }
  })
  const file = join(folder, `${modes.join('-')}-${path}-${backend}.yaml`)
  writeFileSync(file, JSON.stringify({ listeners, rules: { backend } }))
  return file
}

/** Where it waits, when that is not left to the default: with redirect, one of them at a random port of several. */
function listenOf({ mode, name, port }: Tried, topology: Topology): { readonly listen?: readonly string[] } {
  if (mode === 'dnat') return { listen: FAMILIES.map((family) => formatEndpoint(dnatEndpoint(topology, family, port))) }
  return mode === 'redirect' && name === 'hides' ? { listen: ['50180-50183'] } : {}
}

function dnatEndpoint({ addresses }: Topology, family: Family, port: number): Endpoint {
  return { address: addresses[family].xy, port: 50_000 + port }
}

/** A folder that is removed at the end. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), 'limpid-matrix-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) }
}

/** Who dials: Y, or on the path `local` a process of X. */
export function dialler({ path, topology }: Cell): Host {
  return path === 'local' ? topology.x : topology.y
}

/** The servers on Z, on these ports of both families: each reads until FIN, then answers with a pattern. */
export class Servers implements AsyncDisposable {
  readonly #servers = new Map<string, Awaited<ReturnType<typeof serve>>>()
  readonly heard: Received[] = []

  static async start({ z, addresses }: Topology, ports: readonly number[]): Promise<Servers> {
    const servers = new Servers()
    for (const family of FAMILIES) {
      for (const port of ports) {
        const endpoint = { address: addresses[family].z, port }
        const server = await serve(z, endpoint, async (socket) => {
          servers.heard.push(await receiveAll(socket))
          await sendPattern(socket, SERVER_SEED, SIZE)
          socket.end()
        })
        servers.#servers.set(`${family} ${port}`, server)
      }
    }
    return servers
  }

  /** The peers of the server on this port, in order. */
  peers(family: Family, port: number): Endpoint[] {
    return this.#servers.get(`${family} ${port}`)!.peers
  }

  /** Waits until accept() has told of this client. */
  async untilPeer(family: Family, port: number, client: Endpoint): Promise<void> {
    const has = (): boolean => this.peers(family, port).some((peer) => sameEndpoint(peer, client))
    await until(has, `connection of ${formatEndpoint(client)} at port ${port}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers.values()) await server[Symbol.asyncDispose]()
  }
}

/** One connection with bytes and FIN both ways, and what both ends and the flow's record say of it. */
export async function assertCarried(
  cell: Cell,
  family: Family,
  { mode, name, port, source }: Tried,
  servers: Servers,
  limpid: LimpidProcess,
): Promise<void> {
  const { xz, y, z } = cell.topology.addresses[family]
  const to = { address: z, port }
  limpid.skipRecords()
  servers.heard.length = 0
  const socket = dialler(cell).connect(to)
  const timer = setTimeout(() => socket.destroy(), ARRIVES_MS)
  const received = receiveAll(socket)
  await sendPattern(socket, CLIENT_SEED, SIZE)
  const client = { address: socket.localAddress ?? '', port: socket.localPort ?? 0 }
  socket.end()
  const answer = await received
  clearTimeout(timer)
  const what = `${mode}, ${name} (source ${source}), IPv${family}`
  assert.deepEqual(answer, { bytes: SIZE, sha256: patternHash(SERVER_SEED, SIZE), failure: undefined }, what)
  const sent = { bytes: SIZE, sha256: patternHash(CLIENT_SEED, SIZE), failure: undefined }
  assert.deepEqual(servers.heard, [sent], `${what}: what the server heard`)
  const record = await limpid.nextRecord()
  const seen = servers.peers(family, port).at(-1)!
  assert.equal(client.address, cell.path === 'local' ? xz : y)
  assert.equal(seen.address, source === 'proxy' ? xz : client.address, `${what}: the server's peer`)
  // on the path local the client's own socket has its port
  if (source === 'client-port' && cell.path !== 'local') assert.equal(seen.port, client.port, `${what}: the port too`)
  assert.deepEqual(
    {
      listener: record.listener,
      client: record.client,
      originalDst: record.originalDst,
      upstream: record.upstream,
      sourceAddr: record.sourceAddr,
      reason: record.reason,
    },
    { listener: `${mode}-${name}`, client, originalDst: to, upstream: to, sourceAddr: seen, reason: 'closed' },
    `${what}: the flow's record`,
  )
}

/** Dials again and again while somebody else does something. */
export class KeepsDialling {
  readonly #timer: NodeJS.Timeout
  readonly #sockets = new Set<Socket>()

  constructor(host: Host, endpoints: readonly Endpoint[], everyMs = 10) {
    this.#timer = setInterval(() => {
      for (const to of endpoints) {
        const socket = host.connect(to).on('error', () => {})
        this.#sockets.add(socket)
        setTimeout(() => this.#sockets.delete(socket.destroy()), ATTEMPT_MS).unref()
      }
    }, everyMs)
  }

  stop(): void {
    clearInterval(this.#timer)
    for (const socket of this.#sockets) socket.destroy()
  }
}

/** Milliseconds until the server itself answers: its peer is then the client's own socket. */
export async function answersDirectly(cell: Cell, family: Family, port: number, servers: Servers): Promise<number> {
  const startedAt = performance.now()
  for (;;) {
    const client = await connects(dialler(cell), { address: cell.topology.addresses[family].z, port })
    await sleep(5) // the server's accept() follows the client's connect()
    if (client !== undefined && servers.peers(family, port).some((peer) => sameEndpoint(peer, client))) {
      return performance.now() - startedAt
    }
    const ms = performance.now() - startedAt
    assert.ok(
      ms < ARRIVES_MS,
      `${formatEndpoint({ address: '::', port })}: no direct answer over IPv${family} in ${ms} ms`,
    )
    await sleep(10)
  }
}

/** The client's own end when a connection comes to be; undefined when none does. */
export async function connects(host: Host, to: Endpoint, withinMs = ATTEMPT_MS): Promise<Endpoint | undefined> {
  const socket = host.connect(to)
  return await new Promise((resolve) => {
    const settle = (end?: Endpoint): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve(end)
    }
    const timer = setTimeout(settle, withinMs)
    socket.once('error', () => settle())
    socket.once('connect', () => settle({ address: socket.localAddress!, port: socket.localPort! }))
  })
}

/** All that rules consist of on a host, whoever made them, as text that can be compared. */
export async function kernelState(host: Host): Promise<string> {
  const texts = [
    await host.run('nft', ['-s', 'list', 'ruleset']),
    ...(await Promise.all(['iptables-save', 'ip6tables-save', 'ebtables-save'].map((save) => saved(host, save)))),
  ]
  for (const family of ['-4', '-6']) {
    texts.push(await host.run('ip', [family, 'rule']), await host.run('ip', [family, 'route', 'show', 'table', 'all']))
  }
  const keys = ['iptables', 'ip6tables', 'arptables'].map((name) => `net.bridge.bridge-nf-call-${name}`)
  texts.push(keys.map((key) => `${key} = ${host.sysctl(key)}`).join('\n'))
  // dates and counters change by themselves, and the kernel's own routes come with link-local addresses
  return texts.join('\n').replaceAll(/^(# (Generated|Completed)|.* proto kernel ).*$/gm, '')
}

/** Rules of somebody else in every place where ours may go. */
export async function plantOthersRules({ topology, modes, path, backend }: Cell): Promise<void> {
  const { x } = topology
  await x.run('nft', ['-f', '-'], {
    input: `table inet others {
      set s { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
      chain c { type filter hook prerouting priority -150; ip saddr @s meta mark set 0x1; }
    }\n`,
  })
  for (const family of ['-4', '-6']) {
    await x.run('ip', [family, 'rule', 'add', 'pref', '5000', 'fwmark', '0x1/0xff', 'lookup', '100'])
  }
  if (backend === 'nft') return
  // a table nat brings conntrack, which tproxy and mark must do without
  const rewrites = modes.includes('redirect') || modes.includes('dnat')
  for (const program of ['iptables', 'ip6tables']) {
    const tables = Object.entries(BUILT_IN).filter(([table]) => rewrites || table !== 'nat')
    const rules = tables.flatMap(([table, chains]) => [
      `*${table}`,
      ...chains.map((chain) => `-A ${chain} -p udp --dport 9 -j ACCEPT`),
      'COMMIT',
    ])
    await x.run(`${program}-restore`, ['--noflush'], { input: `${rules.join('\n')}\n` })
  }
  if (path !== 'bridged') return
  for (const [table, chain] of [
    ['nat', 'PREROUTING'],
    ['filter', 'FORWARD'],
  ] as const) {
    await x.run('ebtables', ['-t', table, '-A', chain, '-p', 'IPv4', '--ip-proto', 'udp', '-j', 'ACCEPT'])
  }
}

const BUILT_IN = {
  raw: ['PREROUTING', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  nat: ['PREROUTING', 'OUTPUT', 'POSTROUTING'],
}

async function saved(host: Host, program: string): Promise<string> {
  return (await host.run(program, [])).replaceAll(/\[\d+:\d+\]/g, '[]')
}
