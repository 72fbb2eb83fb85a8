import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import type { Intercept, Path } from '../config/types.ts'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, raiseTopology, type Topology, Z_TO_X } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint, sameEndpoint } from '../net/address.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const MODES = ['tproxy', 'redirect', 'dnat', 'mark'] as const satisfies readonly Intercept[]
type Mode = (typeof MODES)[number]
const PATHS: readonly Path[] = ['forwarded', 'local', 'bridged']
const BACKENDS = ['nft', 'iptables'] as const
const ANSWER = Buffer.alloc(20_000, 'z')

const folder = mkdtempSync(join(tmpdir(), 'limpid-bypass-'))
after(() => rmSync(folder, { recursive: true }))

/** One Limpid with a listener of every mode, told apart by their ports; Z has an address of each family that is bypassed. */
interface Cell {
  readonly path: Path
  readonly backend: (typeof BACKENDS)[number]
  readonly topology: Topology
}

describe('what is bypassed goes by every listener, and is counted', { concurrency: 2 }, () => {
  for (const backend of BACKENDS) {
    for (const path of PATHS) {
      test(`${path}, ${backend}: the server's peer is the client itself, in every mode; all else is taken`, async () => {
        const topology = await (path === 'bridged' ? raiseBridge() : raiseTopology())
        try {
          await tryCell({ path, backend, topology })
        } finally {
          await topology.close()
        }
      })
    }
  }
})

async function tryCell(cell: Cell): Promise<void> {
  const { topology } = cell
  const { x, z } = topology
  for (const family of FAMILIES) {
    const length = family === 4 ? 24 : 64
    await z.run('ip', [
      'address',
      'add',
      `${bypassed(cell, family)}/${length}`,
      'dev',
      Z_TO_X,
      ...(family === 6 ? ['nodad'] : []),
    ])
  }
  await z.run('nft', ['-f', '-'], { input: COUNTERS(cell) })
  const limpid = await LimpidProcess.start(x, ['run', '-c', configFile(cell)])
  let taken = 0
  for (const family of FAMILIES) {
    for (const mode of MODES) {
      await goesBy(cell, { address: bypassed(cell, family), port: portOf(mode) })
      assert.equal(limpid.records.length, taken, `${mode}, IPv${family}: no flow of what is bypassed`)
      await isTaken(cell, { address: topology.addresses[family].z, port: portOf(mode) })
      taken += 1
      await limpid.recorded(taken) // of TCP; sessions end with Limpid
    }
  }
  const { sessionsOpen } = (await limpid.stats()) as { sessionsOpen?: number }
  assert.equal(sessionsOpen ?? MODES.length * FAMILIES.length, MODES.length * FAMILIES.length)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal(limpid.records.length, 2 * taken)
  const lines = await Promise.all(FAMILIES.map((family) => accountLine(cell, family)))
  for (const line of lines) assert.ok(limpid.stderr.includes(line), `${line}\n${limpid.stderr}`)
  assert.doesNotMatch(await x.run('nft', ['list', 'ruleset']), /limpid/, 'nothing is left')
}

/** How Limpid accounts for a bypassed address: with nft as Z itself has seen it. */
async function accountLine(cell: Cell, family: Family): Promise<string> {
  if (cell.backend === 'iptables' && cell.path === 'bridged') return 'bypass: ebtables leaves it on the bridge'
  const account = `bypass ${bypassed(cell, family)}/${family === 4 ? 32 : 128}: ${MODES.length} connections`
  if (cell.backend === 'iptables') return `${account}\n`
  const { packets, bytes } = await countedAt(cell, family)
  return `${account}, ${packets} packets, ${bytes} bytes\n`
}

/** A connection and a datagram whose server sees the client itself. */
async function goesBy(cell: Cell, to: Endpoint): Promise<void> {
  const { client, peer } = await connection(cell, to)
  assert.ok(
    sameEndpoint(client, peer),
    `${formatEndpoint(to)}: the server sees ${formatEndpoint(peer)}, not the client ${formatEndpoint(client)}`,
  )
  const datagram = await exchange(cell, to)
  assert.deepEqual(datagram.peer, datagram.client, `${formatEndpoint(to)}: the server's peer of a datagram`)
}

/** The same, whose server sees a socket of Limpid. */
async function isTaken(cell: Cell, to: Endpoint): Promise<void> {
  const { client, peer } = await connection(cell, to)
  assert.ok(!sameEndpoint(client, peer), `${formatEndpoint(to)}: the server sees the client`)
  const datagram = await exchange(cell, to)
  assert.notDeepEqual(datagram.peer, datagram.client, `${formatEndpoint(to)}: the server's peer of a datagram`)
}

async function connection(
  { path, topology: { x, y, z } }: Cell,
  to: Endpoint,
): Promise<{ client: Endpoint; peer: Endpoint }> {
  await using server: LabServer = await serve(z, to, (socket) => {
    socket.on('end', () => socket.end(ANSWER)).resume()
  })
  const socket = (path === 'local' ? x : y).connect(to)
  const received = receiveAll(socket)
  await Promise.race([once(socket, 'connect'), received])
  const client = { address: socket.localAddress ?? '', port: socket.localPort ?? 0 }
  socket.end('question')
  const { bytes, failure } = await received
  assert.equal(failure, undefined, formatEndpoint(to))
  assert.equal(bytes, ANSWER.length, formatEndpoint(to))
  return { client, peer: server.peers[0]! }
}

async function exchange({ path, topology }: Cell, to: Endpoint): Promise<{ client: Endpoint; peer: Endpoint }> {
  const { x, y, z, addresses } = topology
  const own = addresses[to.address.includes(':') ? 6 : 4]
  await using echo = await DatagramPeer.echo(z, to)
  await using peer = await DatagramPeer.open(path === 'local' ? x : y, {
    address: path === 'local' ? own.xz : own.y,
    port: 0,
  })
  for (const text of ['one', 'two']) {
    peer.send(text, to)
    assert.deepEqual((await peer.next(10_000))?.from, to, `${formatEndpoint(to)}: answered from where it was asked`)
  }
  return { client: peer.address, peer: echo.heard[0]!.from }
}

function bypassed({ topology }: Cell, family: Family): string {
  return topology.addresses[family].z.replace(/2$/, '77')
}

/** What Z itself sees of the bypassed addresses. */
function COUNTERS(cell: Cell): string {
  const lines = (field: string) =>
    FAMILIES.map(
      (family) =>
        `${family === 4 ? 'ip' : 'ip6'} ${field} ${bypassed(cell, family)} meta l4proto { tcp, udp } counter\n`,
    ).join('')
  return `table inet seen {
    chain input { type filter hook input priority 0;\n${lines('daddr')} }
    chain output { type filter hook output priority 0;\n${lines('saddr')} }
  }\n`
}

async function countedAt(cell: Cell, family: Family): Promise<{ packets: number; bytes: number }> {
  const sum = { packets: 0, bytes: 0 }
  const listing = await cell.topology.z.run('nft', ['list', 'table', 'inet', 'seen'])
  for (const line of listing.split('\n').filter((one) => one.includes(` ${bypassed(cell, family)} `))) {
    const [, packets, bytes] = /counter packets (\d+) bytes (\d+)/.exec(line)!
    sum.packets += Number(packets)
    sum.bytes += Number(bytes)
  }
  return sum
}

function portOf(mode: Mode): number {
  return 5_001 + MODES.indexOf(mode)
}

function configFile(cell: Cell): string {
  const { path, backend, topology } = cell
  const listeners = MODES.map((mode) => {
    const at = 50_000 + portOf(mode)
    const own = FAMILIES.map((family) => formatEndpoint({ address: topology.addresses[family].xy, port: at }))
    const listen = { tproxy: at, redirect: at, dnat: own, mark: undefined }[mode]
    return { name: mode, intercept: mode, protocols: ['tcp', 'udp'], paths: [path], ports: [portOf(mode)], listen }
  })
  const file = join(folder, `${path}-${backend}.yaml`)
  const bypass = FAMILIES.map((family) => bypassed(cell, family))
  writeFileSync(file, JSON.stringify({ listeners, bypass, rules: { backend } }))
  return file
}
