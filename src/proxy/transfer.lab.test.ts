import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { after, before, beforeEach, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { patternHash, receiveAll, sendPattern, serve, sleep, until } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const GIB = 1_073_741_824
let lab: Topology
let limpid: LimpidProcess

before(async () => {
  lab = await raiseTopology()
  limpid = await LimpidProcess.start(lab.x, ['run', '--intercept', 'tproxy', '--source', 'client'])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await lab.close()
})

beforeEach(async () => {
  await sleep(20)
  limpid.skipRecords()
})

for (const family of [4, 6] as const) {
  const { y, z } = ADDRESSES[family]
  const endpoint = { address: z, port: 80 }

  for (const size of [0, 1, 100_000]) {
    test(`IPv${family}: ${size} bytes each way arrive unchanged; Y and Z know each other, not X`, async () => {
      let got: { sha256: string } | undefined
      await using server = await serve(lab.z, endpoint, async (socket) => {
        got = await receiveAll(socket)
        await sendPattern(socket, 2, size)
        socket.end()
      })
      const client = lab.y.connect(endpoint)
      await sendPattern(client, 1, size)
      client.end()
      const received = await receiveAll(client)
      assert.deepEqual([received.failure, received.sha256], [undefined, patternHash(2, size)])
      assert.equal(got?.sha256, patternHash(1, size))
      assert.equal(client.remoteAddress ?? z, z)
      assert.equal(server.peers[0]?.address, y)
      const record = await limpid.nextRecord()
      assert.deepEqual(record.originalDst, endpoint)
      assert.equal(record.sourceAddr?.address, y)
      assert.equal(record.reason, 'closed')
      assert.equal(record.bytesClientToUpstream, size)
      assert.equal(record.bytesUpstreamToClient, size)
    })
  }

  test(`IPv${family}: an upstream that refuses reaches the client as a reset`, async () => {
    const client = lab.y.connect({ address: z, port: 81 })
    const received = await receiveAll(client)
    assert.equal(received.failure, 'ECONNRESET')
    const record = await limpid.nextRecord()
    assert.equal(record.reason, 'dial-refused')
    assert.ok(record.durationMs < 50, `${record.durationMs} ms`)
  })

  test(`IPv${family}: a reset passes through as a reset, in both directions`, async () => {
    await using server = await serve(lab.z, endpoint, (socket) => socket.resume())
    const fromClient = lab.y.connect(endpoint)
    fromClient.write('x')
    // the reset comes after the server has read, see below
    await until(() => [...server.connections].some(({ bytesRead }) => bytesRead === 1), 'first byte')
    const [peer] = server.connections as Set<Socket>
    const seen = once(peer!, 'error')
    fromClient.resetAndDestroy()
    assert.equal((await seen)[0].code, 'ECONNRESET')
    assert.equal((await limpid.nextRecord()).reason, 'client-reset')

    const fromServer = lab.y.connect(endpoint)
    fromServer.write('x')
    await until(() => server.peers.length === 2 && server.connections.size === 1, 'connection')
    const [cutting] = server.connections as Set<Socket>
    cutting!.write(Buffer.alloc(50_000))
    // the reset comes after the client has read: libuv takes bytes and RST in one event for an end (uv__stream_io)
    fromServer.on('data', () => fromServer.bytesRead === 50_000 && cutting!.resetAndDestroy())
    const received = await receiveAll(fromServer)
    assert.deepEqual([received.bytes, received.failure], [50_000, 'ECONNRESET'])
    assert.equal((await limpid.nextRecord()).reason, 'upstream-reset')
  })

  test(`IPv${family}: half-close passes through, whichever side closes first`, async () => {
    let got = { bytes: 0 }
    await using _server = await serve(lab.z, endpoint, async (socket) => {
      got = await receiveAll(socket)
      await sleep(30)
      await sendPattern(socket, 3, 200_000)
      socket.end()
    })
    const first = lab.y.connect(endpoint)
    first.end('request')
    assert.equal((await receiveAll(first)).sha256, patternHash(3, 200_000))
    assert.equal(got.bytes, 7)
    assert.equal((await limpid.nextRecord()).reason, 'closed')

    const other = { address: z, port: 82 }
    await using _greeter = await serve(lab.z, other, async (socket) => {
      socket.end('bye')
      got = await receiveAll(socket)
    })
    const last = lab.y.connect(other)
    assert.equal((await receiveAll(last)).bytes, 3)
    await sendPattern(last, 4, 200_000)
    last.end()
    assert.equal((await limpid.nextRecord()).reason, 'closed')
    assert.equal(got.bytes, 200_000)
  })
}

test('1 GiB arrives unchanged, and its flow used no more than one pipe', async () => {
  await using _server = await serve(lab.z, { address: ADDRESSES[4].z, port: 80 }, async (socket) => {
    const got = await receiveAll(socket)
    socket.end(got.sha256)
  })
  const client = lab.y.connect({ address: ADDRESSES[4].z, port: 80 })
  const answer = once(client, 'data')
  await sendPattern(client, 5, GIB)
  client.end()
  const [hash] = (await answer) as [Buffer]
  assert.equal(hash.toString(), patternHash(5, GIB))
  const record = await limpid.nextRecord(60_000)
  assert.equal(record.bytesClientToUpstream, GIB)
  assert.equal(record.reason, 'closed')
})
