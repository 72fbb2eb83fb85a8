import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, patternHash, receiveAll, sendPattern, serve, sleep, until } from '../lab/traffic.fixture.ts'
import type { CloseReason, FlowRecord } from '../proxy/record.ts'

await enterNamespaces()

const { y, z } = ADDRESSES[4]
const OTHER_CLIENT = '10.0.3.2'
const RATE = 2_000_000
const BURST = 100_000
/** Of the rate, at the least: how well a busy machine keeps up is not what this is about. */
const LEAST = 0.4
const folder = mkdtempSync(join(tmpdir(), 'limpid-rate-'))
const file = join(folder, 'limpid.yaml')
const servers: LabServer[] = []
let lab: Topology
let limpid: LimpidProcess
let descriptors: number

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const fast = { bytes: '2M/s', burstBytes: '100k' }
const slow = { bytes: '10k/s', burstBytes: '100k' }
const CONFIG = {
  listeners: [{ name: 'all', source: 'client', protocols: ['tcp', 'udp'] }],
  policy: {
    rules: [
      { name: 'each', ports: [80, 86], then: 'forward', limit: fast },
      { name: 'together', ports: 81, then: 'forward', limit: { ...fast, per: 'rule' } },
      { name: 'slow', ports: 82, then: 'forward', limit: slow, timeouts: { idle: '300ms' } },
      { name: 'short', ports: 83, then: 'forward', timeouts: { idle: '300ms', session: '300ms' } },
      { name: 'datagrams', ports: 84, then: 'forward', limit: { bytes: '100k/s', burstBytes: '100k' } },
    ],
  },
}
// biome-ignore-end lint/suspicious/noThenProperty: as above

before(async () => {
  lab = await raiseTopology()
  await lab.y.run('ip', ['address', 'add', `${OTHER_CLIENT}/24`, 'dev', 'y-x'])
  // who says SIZE gets so many bytes and a FIN, who says `SIZE stays` no FIN
  servers.push(await serve(lab.z, { address: z, port: 85 }, (socket) => socket.end(Buffer.alloc(12_000_000))))
  for (const port of [80, 81, 82, 83]) servers.push(await serve(lab.z, { address: z, port }, answer))
  writeFileSync(file, JSON.stringify(CONFIG))
  chmodSync(folder, 0o755)
  chmodSync(file, 0o644)
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  assert.equal((await download(83, 1_000).done).sha256, patternHash(1, 1_000))
  await limpid.nextRecord()
  descriptors = limpid.descriptors()
})

after(async () => {
  await sleep(50)
  const { flowsOpen } = await limpid.stats()
  const code = await limpid.stop()
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
  assert.deepEqual([code, flowsOpen], [0, 0], limpid.stderr)
})

/** The record of the flow whose client got so many bytes. */
async function recordOf(bytes: number): Promise<FlowRecord> {
  const isIt = ({ bytesUpstreamToClient }: FlowRecord) => bytesUpstreamToClient === bytes
  await until(() => limpid.records.some(isIt), `record of ${bytes} bytes`)
  return limpid.records.find(isIt)!
}

async function recordBy(reason: CloseReason): Promise<FlowRecord> {
  const isIt = (record: FlowRecord) => record.reason === reason
  await until(() => limpid.records.some(isIt), `record of ${reason}`)
  return limpid.records.find(isIt)!
}

function answer(socket: Socket): void {
  socket.once('data', async (asked: Buffer) => {
    const [size, stays] = asked.toString().split(' ')
    socket.resume()
    await sendPattern(socket, 1, Number(size))
    if (stays !== 'stays') socket.end()
  })
}

/** Begins to read `size` bytes; `bytes` and `ms` are those of this moment, each reading is held against the bound. */
function download(port: number, size: number, from: string = y) {
  const beganAt = performance.now()
  const client = lab.y.connect({ address: z, port }, { from: { address: from, port: 0 } })
  const progress = { bytes: 0, ms: 0 }
  client.on('data', (chunk: Buffer) => {
    progress.bytes += chunk.length
    progress.ms = performance.now() - beganAt
  })
  client.end(`${size}`)
  return { client, progress, done: receiveAll(client) }
}

test('a download never has more than burst and rate, has most of it, and arrives unchanged; others are not slowed', async () => {
  const size = 4_100_000
  const cpuBefore = limpid.cpuSeconds()
  const beganAt = performance.now()
  const limited = download(80, size)
  const most: string[] = []
  limited.client.on('data', () => {
    const { bytes, ms } = limited.progress
    if (bytes > BURST + (RATE * ms) / 1_000) most.push(`${bytes} bytes after ${ms} ms`)
  })
  // as fast it would take 6 s
  assert.equal((await download(85, 12_000_000).done).bytes, 12_000_000)
  const freeMs = performance.now() - beganAt
  assert.ok(freeMs < 5_000, `${freeMs} ms`)
  assert.deepEqual(await limited.done, { bytes: size, sha256: patternHash(1, size), failure: undefined })
  const { ms } = limited.progress
  assert.deepEqual(most, [])
  assert.ok(ms >= 2_000 && ms <= 2_000 / LEAST, `${ms} ms`)
  assert.ok(limpid.cpuSeconds() - cpuBefore < 1, 'waiting costs little')
})

test('flows of one client share a limit per client, and another client has its own', async () => {
  const [one, two] = [download(80, 1_500_000), download(80, 1_500_000)]
  const other = download(80, 1_500_000, OTHER_CLIENT)
  const beganAt = performance.now()
  await other.done
  const otherMs = performance.now() - beganAt
  const both = one.progress.bytes + two.progress.bytes
  assert.ok(both <= BURST + (RATE * (performance.now() - beganAt + 100)) / 1_000, `${both} bytes in ${otherMs} ms`)
  assert.ok(otherMs <= 700 / LEAST, `${otherMs} ms`)
  const received = await Promise.all([one.done, two.done])
  assert.deepEqual(new Set(received.map(({ sha256 }) => sha256)), new Set([patternHash(1, 1_500_000)]))
  const [first, last] = [one.progress.ms, two.progress.ms].sort((a, b) => a - b) as [number, number]
  assert.ok(last >= 1_450, `3 MB in ${last} ms`)
  assert.ok(first > last * 0.7, `${first} and ${last} ms: one was served before the other`)
})

test('per rule all clients share, each direction by itself', async () => {
  const size = 1_000_000
  const beganAt = performance.now()
  const down = [download(81, size), download(81, size, OTHER_CLIENT)]
  // meanwhile as much the other way
  const client = lab.y.connect({ address: z, port: 81 }).resume()
  const sent = sendPattern(client, 2, 2 * size).then(() => client.end())
  const received = await Promise.all(down.map(({ done }) => done))
  const ms = performance.now() - beganAt
  await sent
  client.destroy()
  for (const { sha256 } of received) assert.equal(sha256, patternHash(1, size))
  assert.ok(ms >= 950 && ms <= 950 / LEAST, `${ms} ms`)
})

test('an upload is held back, its FIN comes behind all its bytes, and the answer after it', async () => {
  const size = 1_100_000
  let uploaded: { sha256: string } | undefined
  await using server = await serve(lab.z, { address: z, port: 86 }, async (socket) => {
    uploaded = await receiveAll(socket)
    await sendPattern(socket, 3, 50_000)
    socket.end()
  })
  const beganAt = performance.now()
  const client = lab.y.connect({ address: z, port: 86 })
  const answered = receiveAll(client)
  await sendPattern(client, 2, size)
  client.end()
  assert.equal((await answered).sha256, patternHash(3, 50_000))
  const ms = performance.now() - beganAt
  assert.equal(uploaded?.sha256, patternHash(2, size))
  assert.ok(ms >= 500 && ms <= 500 / LEAST, `${ms} ms`)
  assert.equal(server.peers.length, 1)
})

test('a flow that waits for its turn is not idle; when its server resets, what came before goes on in its time', async () => {
  const { progress, done } = download(82, 104_000)
  assert.equal((await done).bytes, 104_000)
  assert.ok(progress.ms >= 400, `${progress.ms} ms`)
  assert.equal((await recordOf(104_000)).reason, 'closed')

  const other = lab.y.connect({ address: z, port: 82 }, { from: { address: OTHER_CLIENT, port: 0 } }).resume()
  other.on('error', () => {})
  other.write('106000 stays')
  await until(() => servers[3]!.connections.size === 1, 'a connection')
  await sleep(150) // for all to be acknowledged by Limpid
  const [cutting] = servers[3]!.connections as Set<Socket>
  cutting!.resetAndDestroy()
  const record = await recordOf(106_000)
  assert.equal(record.reason, 'upstream-reset')
  assert.ok(record.durationMs >= 550, `${record.durationMs} ms`)
  other.destroy()

  // these were all that use TCP
  while ((await limpid.stats()).flowsOpen > 0) await sleep(20)
  const left = limpid.descriptors() - 2 * (await limpid.stats()).pipesOpen
  assert.ok(left <= descriptors, `${left} descriptors, ${descriptors} before`)
})

test('datagrams beyond the rate are dropped and counted, those within it arrive', async () => {
  await using server = await DatagramPeer.open(lab.z, { address: z, port: 84 })
  await using client = await DatagramPeer.open(lab.y, { address: y, port: 0 }, { address: z, port: 84 })
  const beganAt = performance.now()
  const datagram = Buffer.alloc(1_000)
  for (let i = 0; i < 400; i++) {
    client.send(datagram)
    if (i % 20 === 19) await sleep(10)
  }
  const count = async () => (await limpid.stats()).datagramsDropped['policy-rate'] ?? 0
  await until(() => server.heard.length >= 100, 'the burst')
  await sleep(100)
  const heard = server.heard.length
  assert.ok(heard <= 100 + (performance.now() - beganAt) / 10, `${heard} datagrams`)
  assert.equal((await count()) + heard, 400)
  // answers have a limit of their own
  const { from } = server.heard[0]!
  for (let i = 0; i < 50; i++) server.send(datagram, from)
  assert.ok(await client.hears(50))
})

test("a rule's timeouts end a flow and a session before the listener's would", async () => {
  const client = lab.y.connect({ address: z, port: 83 }).resume()
  client.on('error', () => {})
  const flow = await recordBy('idle-timeout')
  client.destroy()
  assert.equal(flow.rule, 'short')
  assert.ok(flow.durationMs >= 300 && flow.durationMs < 2_000, `${flow.durationMs} ms`)
  await using server = await DatagramPeer.echo(lab.z, { address: z, port: 83 })
  await using peer = await DatagramPeer.open(lab.y, { address: y, port: 0 }, { address: z, port: 83 })
  peer.send('x')
  assert.ok(await peer.hears(1))
  const session = await recordBy('session-idle')
  assert.deepEqual([session.rule, server.heard.length], ['short', 1])
  assert.ok(session.durationMs >= 300 && session.durationMs < 2_000, `${session.durationMs} ms`)
})
