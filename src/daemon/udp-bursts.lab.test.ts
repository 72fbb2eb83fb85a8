import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { BurstPeer, type Incoming } from '../lab/burst.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import type { ProxyStats } from '../proxy/stats.ts'

await enterNamespaces()

const PORT = 5_000
const SESSIONS = 4
const BYTES = 48 // as NTP's
const folder = mkdtempSync(join(tmpdir(), 'limpid-bursts-'))
let lab: Topology
let limpid: LimpidProcess
let earlier: ProxyStats

before(async () => {
  lab = await raiseTopology()
  const file = join(folder, 'limpid.yaml')
  const listener = { intercept: 'tproxy', protocols: 'udp', source: 'client-port', ports: [PORT] }
  writeFileSync(file, JSON.stringify({ listeners: [{ ...listener, timeouts: { session: '1s' } }] }))
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

beforeEach(async () => {
  earlier = await limpid.stats()
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** What Limpid has counted since the test began. */
async function counted() {
  const { datagramsDropped, datagramsClientToUpstream, datagramsUpstreamToClient } = await limpid.stats()
  const before = earlier.datagramsDropped as Record<string, number>
  const dropped = Object.entries(datagramsDropped).map(
    ([reason, count]) => [reason, count - (before[reason] ?? 0)] as const,
  )
  return {
    dropped: Object.fromEntries(dropped.filter(([, count]) => count > 0)),
    up: datagramsClientToUpstream - earlier.datagramsClientToUpstream,
    down: datagramsUpstreamToClient - earlier.datagramsUpstreamToClient,
  }
}

const serverAt = (family: Family): Endpoint => ({ address: ADDRESSES[family].z, port: PORT })

function clientOf(family: Family): BurstPeer {
  return new BurstPeer(lab.y, { address: ADDRESSES[family].y, port: 0 }, { peer: serverAt(family) })
}

function recordOf(client: BurstPeer): FlowRecord | undefined {
  return limpid.records.find((record) => formatEndpoint(record.client) === formatEndpoint(client.address))
}

function numbered(from: number, count: number): { bytes: Buffer }[] {
  return Array.from({ length: count }, (_, i) => {
    const bytes = Buffer.alloc(BYTES)
    bytes.writeUInt32BE(from + i)
    return { bytes }
  })
}

const numbersOf = (received: readonly Incoming[]): number[] => received.map(({ bytes }) => bytes.readUInt32BE(0))

/** What comes until nothing has come for a while. */
async function allOf(peer: BurstPeer, quietMs = 700): Promise<Incoming[]> {
  const all: Incoming[] = []
  for (let lastAt = performance.now(); performance.now() - lastAt < quietMs; await sleep(5)) {
    const more = peer.receive()
    if (more.length > 0) lastAt = performance.now()
    all.push(...more)
  }
  return all
}

function assertAscending(numbers: readonly number[], what: string): void {
  for (let i = 1; i < numbers.length; i++) assert.ok(numbers[i]! > numbers[i - 1]!, `${what}: order at ${i}`)
}

/** No program reads while `work` runs: what comes for Limpid waits in its sockets' buffers. */
async function whileStopped(work: () => void): Promise<void> {
  limpid.child.kill('SIGSTOP')
  await sleep(20)
  work()
  limpid.child.kill('SIGCONT')
}

for (const family of [4, 6] as const) {
  test(`IPv${family}: bursts of several sessions arrive whole and in order, and so do their answers`, async () => {
    using server = new BurstPeer(lab.z, serverAt(family))
    const clients = Array.from({ length: SESSIONS }, () => clientOf(family))
    const bursts = 20
    const each = 100 // 400 in all fit where the kernel allows no more than its default (net.core.rmem_max)
    const up: Incoming[] = []
    const down = clients.map((): Incoming[] => [])
    for (let burst = 0; burst < bursts; burst++) {
      for (const client of clients) client.send(numbered(burst * each, each))
      const wanted = (burst + 1) * each * SESSIONS
      await until(() => up.push(...server.receive()) >= wanted, 'the whole burst')
      server.send(up.slice(-each * SESSIONS).map(({ bytes, from }) => ({ bytes, to: from })))
      for (const [i, client] of clients.entries()) {
        await until(() => down[i]!.push(...client.receive()) >= (burst + 1) * each, 'all answers')
      }
    }
    for (const [i, client] of clients.entries()) {
      const own = up.filter(({ from }) => formatEndpoint(from) === formatEndpoint(client.address))
      assertAscending(numbersOf(own), `session ${i}, up`)
      assert.equal(own.length, bursts * each)
      assertAscending(numbersOf(down[i]!), `session ${i}, down`)
      assert.equal(down[i]!.length, bursts * each)
      client[Symbol.dispose]()
    }
    assert.deepEqual(await counted(), { dropped: {}, up: up.length, down: up.length })
  })
}

test('what a small buffer of the server costs is counted there, and not here', async () => {
  using server = new BurstPeer(lab.z, serverAt(4), { receiveBuffer: 4_096 })
  using client = clientOf(4)
  const sent = 400
  client.send(numbered(0, sent))
  await until(() => server.drops > 0, 'a datagram that the server loses')
  const arrived = numbersOf(await allOf(server))
  assertAscending(arrived, 'what is left')
  assert.equal(arrived.length + server.drops, sent)
  assert.deepEqual(await counted(), { dropped: {}, up: sent, down: 0 })
})

test("what the listener's full buffer costs is counted at once: sent = arrived + lost", async () => {
  using server = new BurstPeer(lab.z, serverAt(4))
  using client = clientOf(4)
  client.send(numbered(0, 1))
  await until(() => server.receive().length > 0, 'a session')
  const sent = 30_000 // the buffer has room for about 20,000 at most
  await whileStopped(() => client.send(numbered(1, sent)))
  const arrived = numbersOf(await allOf(server))
  assertAscending(arrived, 'what is left')
  const taken = arrived.length + server.drops
  const lost = sent - taken
  console.log(`listener stopped: ${sent} sent, ${arrived.length} arrived`)
  assert.ok(lost > 0 && taken > 0)
  assert.deepEqual(await counted(), { dropped: { 'listener-buffer': lost }, up: taken + 1, down: 0 })
})

test("what a session's full buffer costs is counted at once, and in its record: sent = arrived + lost", async () => {
  using server = new BurstPeer(lab.z, serverAt(6))
  using client = clientOf(6)
  client.send(numbered(0, 1))
  const asked: Incoming[] = []
  await until(() => asked.push(...server.receive()) > 0, 'a session')
  const to = asked[0]!.from
  server.send(numbered(0, 1).map(({ bytes }) => ({ bytes, to })))
  await until(() => client.receive().length > 0, 'an answer')
  const sent = 6_000 // the buffer has room for about 2,500 at most
  await whileStopped(() => server.send(numbered(1, sent).map(({ bytes }) => ({ bytes, to }))))
  const arrived = numbersOf(await allOf(client))
  assertAscending(arrived, 'what is left')
  const taken = arrived.length + client.drops
  const lost = sent - taken
  console.log(`session stopped: ${sent} sent, ${arrived.length} arrived`)
  assert.ok(lost > 0 && taken > 0)
  const sums = { dropped: { 'upstream-buffer': lost }, up: 1, down: taken + 1 }
  assert.deepEqual(await counted(), sums)
  await until(() => recordOf(client) !== undefined, "the session's record")
  const { datagrams } = recordOf(client)!
  assert.deepEqual(datagrams, { clientToUpstream: 1, upstreamToClient: taken + 1, dropped: lost })
  assert.deepEqual(await counted(), sums, 'counted once')
})

test("what a stream's own socket towards its client loses is counted as well", async () => {
  using server = new BurstPeer(lab.z, serverAt(4))
  using client = clientOf(4)
  let answers = 0
  for (let i = 0; i < 8; i++) {
    client.send(numbered(i, 1))
    const asked: Incoming[] = []
    await until(() => asked.push(...server.receive()) > 0, 'a question')
    server.send(asked.map(({ bytes, from }) => ({ bytes, to: from })))
    await until(() => client.receive().length > 0, 'an answer')
    answers++
  }
  const sent = 6_000
  await whileStopped(() => client.send(numbered(answers, sent)))
  const arrived = numbersOf(await allOf(server))
  assertAscending(arrived, 'what is left')
  const taken = arrived.length + server.drops
  const lost = sent - taken
  console.log(`stream's socket stopped: ${sent} sent, ${arrived.length} arrived`)
  assert.ok(lost > 0 && taken > 0)
  assert.deepEqual(await counted(), { dropped: { 'client-buffer': lost }, up: taken + answers, down: answers })
})
