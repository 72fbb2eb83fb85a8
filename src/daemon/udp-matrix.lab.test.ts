import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import type { Intercept, Path } from '../config/types.ts'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, raiseTopology, type Topology } from '../lab/topology.ts'
import { OWN_PORTS } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const MODES = ['tproxy', 'redirect', 'dnat', 'mark', 'none'] as const satisfies readonly Intercept[]
type Mode = (typeof MODES)[number]
const PATHS: readonly Path[] = ['forwarded', 'local', 'bridged']
const BACKENDS = ['nft', 'iptables'] as const
/** The source of each listener, told apart by their ports. */
const LISTENERS = [
  { name: 'hides', port: 1, source: 'proxy' },
  { name: 'keeps', port: 2, source: 'client' },
  { name: 'same-port', port: 3, source: 'client-port' },
  { name: 'other', port: 4, source: 'address' },
] as const
const OTHER = { 4: '10.0.3.77', 6: 'fd00:3::77' } as const
/** Of what is longer than a packet only the first fragment has ports, by which a bridge could tell it. */
const LONG = { forwarded: 3_500, local: 3_500, bridged: 1_400 } as const

const ANSWER_MS = 10_000 // a slow machine is no failure

const folder = mkdtempSync(join(tmpdir(), 'limpid-udp-'))
const results = new Map<string, string>()

after(() => {
  rmSync(folder, { recursive: true })
  console.log(
    ['UDP: mode, path: each with its sources', ...[...results].map(([cell, how]) => `${cell}: ${how}`)].join('\n'),
  )
})

/** One Limpid with listeners of every mode, told apart by their ports. */
interface Cell {
  readonly path: Path
  readonly backend: (typeof BACKENDS)[number]
  readonly topology: Topology
}

describe('UDP: mode × path × family × source × backend', { concurrency: 2 }, () => {
  for (const backend of BACKENDS) {
    for (const path of PATHS) {
      test(`${path}, ${backend}, every mode: answers come from the address asked, the server sees the source, nothing is left`, async () => {
        const topology = await (path === 'bridged' ? raiseBridge() : raiseTopology())
        topology.y.setSysctls(OWN_PORTS)
        try {
          await tryCell({ path, backend, topology })
        } finally {
          await topology.close()
        }
      })
    }
  }
})

/** Clients dial a plain forwarder themselves: that is the same on every path. */
function modesOf({ path }: Cell): readonly Mode[] {
  return path === 'forwarded' ? MODES : MODES.filter((mode) => mode !== 'none')
}

async function tryCell(cell: Cell): Promise<void> {
  const { x } = cell.topology
  const pristine = await ruleset(cell)
  await using limpid = await running(cell)
  const expected: SessionSeen[] = []
  for (const mode of modesOf(cell)) {
    for (const family of FAMILIES) {
      for (const tried of LISTENERS) {
        for (const connected of [true, false]) {
          expected.push(await exchange(cell, mode, family, tried, connected, limpid.process))
        }
      }
    }
    results.set(`${mode}, ${cell.path}, ${cell.backend}`, 'ok')
  }
  const { datagramsDropped } = await limpid.process.stats()
  assert.deepEqual(datagramsDropped, {}, 'nothing is lost')
  assert.equal(await limpid.process.stop(), 0, limpid.process.stderr)
  assert.deepEqual(limpid.process.records.map(seenOf).toSorted(byClient), expected.toSorted(byClient), 'the records')
  assert.equal(await ruleset(cell), pristine, 'nothing is left')
  assert.equal((await x.run('ss', ['-Huan'])).trim(), '', 'no socket is left')
}

async function running(cell: Cell): Promise<AsyncDisposable & { readonly process: LimpidProcess }> {
  const { x } = cell.topology
  const process = await LimpidProcess.start(x, ['run', '-c', configFile(cell)])
  return { process, [Symbol.asyncDispose]: async () => void (await process.stop()) }
}

/** What a session's record says, but for times and ids. */
function seenOf(record: FlowRecord) {
  const { listener, protocol, client, originalDst, upstream, sourceAddr, datagrams, reason } = record
  const bytes = { up: record.bytesClientToUpstream, down: record.bytesUpstreamToClient }
  return { listener, protocol, client, originalDst, upstream, sourceAddr, bytes, datagrams, reason }
}
type SessionSeen = ReturnType<typeof seenOf>

function byClient(a: SessionSeen, b: SessionSeen): number {
  return formatEndpoint(a.client).localeCompare(formatEndpoint(b.client))
}

/** A client's datagrams and their answers. Returns what the session's record must say. */
async function exchange(
  cell: Cell,
  mode: Mode,
  family: Family,
  { name, port: offset, source }: (typeof LISTENERS)[number],
  connected: boolean,
  limpid: LimpidProcess,
): Promise<SessionSeen> {
  const { path, topology } = cell
  const port = portOf(mode, offset)
  const { x, y, z } = topology
  const addresses = topology.addresses[family]
  const server = { address: addresses.z, port }
  const dialled = mode === 'none' ? { address: addresses.xy, port } : server
  const own = path === 'local' ? addresses.xz : addresses.y
  const what = `${mode}, ${name} (source ${source}), IPv${family}, ${connected ? 'connected' : 'unconnected'}`
  await using echo = await DatagramPeer.echo(z, server)
  const bound = { address: own, port: 0 }
  await using peer = await DatagramPeer.open(path === 'local' ? x : y, bound, connected ? dialled : undefined)
  const payloads = [Buffer.from('short'), Buffer.alloc(LONG[path], 'x'), Buffer.alloc(0)]
  for (const bytes of payloads) {
    peer.send(bytes, connected ? undefined : dialled)
    const answer = await peer.next(ANSWER_MS)
    assert.deepEqual(answer?.from, dialled, `${what}: the answer comes from the address asked; ${limpid.stderr}`)
    assert.ok(answer.bytes.equals(bytes), `${what}: ${bytes.length} bytes`)
  }
  const client = peer.address
  const [seen, ...others] = echo.heard.map(({ from }) => from)
  assert.deepEqual(others, [seen, seen], `${what}: one peer for the server`)
  assert.equal(seen!.address, expectedAddress(cell, family, source, client), `${what}: the server's peer`)
  if (source === 'client-port' && path !== 'local') assert.equal(seen!.port, client.port, `${what}: the port too`)
  const bytes = payloads.reduce((sum, { length }) => sum + length, 0)
  return {
    ...{ listener: `${mode}-${name}-${family}`, protocol: 'udp', client, originalDst: dialled, upstream: server },
    ...{ sourceAddr: seen, bytes: { up: bytes, down: bytes }, reason: 'shutdown' },
    datagrams: { clientToUpstream: payloads.length, upstreamToClient: payloads.length, dropped: 0 },
  }
}

function expectedAddress(cell: Cell, family: Family, source: string, client: Endpoint): string {
  if (source === 'proxy') return cell.topology.addresses[family].xz
  return source === 'address' ? otherAddress(cell, family) : client.address
}

function configFile(cell: Cell): string {
  const { path, backend } = cell
  const listeners = modesOf(cell).flatMap((mode) =>
    FAMILIES.flatMap((family) => LISTENERS.map((tried) => listenerOf(cell, mode, tried, family))),
  )
  const file = join(folder, `${path}-${backend}.yaml`)
  writeFileSync(file, JSON.stringify({ listeners, rules: { backend } }))
  return file
}

function portOf(mode: Mode, offset: number): number {
  return 5_000 + 10 * MODES.indexOf(mode) + offset
}

/** One for each family: a source address, and a target, are of one. */
function listenerOf(
  cell: Cell,
  mode: Mode,
  { name, port: offset, source }: (typeof LISTENERS)[number],
  family: Family,
) {
  const { path, topology } = cell
  const { xy, z } = topology.addresses[family]
  const port = portOf(mode, offset)
  const at = 50_000 + port
  const listen = {
    none: formatEndpoint({ address: family === 4 ? '0.0.0.0' : '::', port }),
    mark: undefined,
    tproxy: formatEndpoint({ address: family === 4 ? '127.0.0.1' : '::1', port: at }),
    redirect: `${at}`,
    dnat: formatEndpoint({ address: xy, port: at }),
  }[mode]
  return {
    ...{ name: `${mode}-${name}-${family}`, intercept: mode, protocols: 'udp', family, listen },
    ...{ source: source === 'address' ? otherAddress(cell, family) : source },
    ...(mode === 'none' ? { to: formatEndpoint({ address: z, port }) } : { paths: [path], ports: [port] }),
  }
}

/** Across a bridge nobody would answer for an address that no host has. */
function otherAddress({ path, topology }: Cell, family: Family): string {
  return path === 'bridged' ? topology.addresses[family].xz : OTHER[family]
}

async function ruleset({ topology: { x } }: Cell): Promise<string> {
  const rules = await Promise.all((['-4', '-6'] as const).map((family) => x.run('ip', [family, 'rule'])))
  // the tables and built-in chains that iptables makes stay, empty
  const listed = await x.run('nft', ['-s', 'list', 'ruleset'])
  const filled = listed.replaceAll(/\tchain \S+ \{\n\t\ttype .*\n\t\}\n\n?/g, '').replaceAll(/table .*\{\n\}\n/g, '')
  return [filled, ...rules].join('\n')
}
