import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import type { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { patternHash, receiveAll, sendPattern, serve, sleep, until } from '../lab/traffic.fixture.ts'

await enterNamespaces()

let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

for (const calls of ['together', 'one by one'] as const) {
  test(`calls ${calls}: 2000 concurrent connections that behave in every way: each is told once, nothing leaks`, async () => {
    const flags = calls === 'together' ? [] : ['--no-io-uring']
    const limpid = await LimpidProcess.start(lab.x, ['run', '--intercept', 'tproxy', '--source', 'client', ...flags])
    await openOneFlow(limpid) // some descriptors are opened with the first, once
    assert.equal(ringsOf(limpid.pid), calls === 'together' ? 1 : 0)
    const endpoint = { address: ADDRESSES[4].z, port: 80 }
    const count = 2_000
    // the server: as many bytes as the client's first 8 ask for, with or without waiting for its FIN
    await using server = await serve(lab.z, endpoint, (socket) => {
      socket.once('data', async (head: Buffer) => {
        const size = head.readUInt32BE(0)
        const how = head.readUInt32BE(4)
        if (how === 3) return void socket.resetAndDestroy()
        if (how === 5) return answerAndReset(socket, size)
        socket.resume()
        if (how === 1) await once(socket, 'end').catch(() => {})
        await sendPattern(socket, size, size)
        socket.end()
      })
    })
    const ownDescriptors = async (): Promise<number> => limpid.descriptors() - 2 * (await limpid.stats()).pipesOpen
    const settledDescriptors = await ownDescriptors()
    const told = limpid.records.length
    const expected: Record<string, number> = {}
    const connections = Array.from({ length: count }, async (_, index) => {
      const how = index % 6 // 0 plain, 1 client closes first, 2 with pauses, 3 server resets, 4 client resets, 5 server answers and resets
      const size = (index * 7_919) % 150_000
      const reason = how === 3 || how === 5 ? 'upstream-reset' : how === 4 ? 'client-reset' : 'closed'
      expected[reason] = (expected[reason] ?? 0) + 1
      const client = lab.y.connect(endpoint)
      const head = Buffer.alloc(8)
      head.writeUInt32BE(size, 0)
      head.writeUInt32BE(how === 4 ? 1 : how, 4)
      client.on('error', () => {})
      if (how === 2) await sleep(index % 300)
      client.write(head)
      if (how === 4) {
        await once(client, 'connect')
        await sleep(150)
        client.resetAndDestroy()
        return true
      }
      if (how === 1) client.end()
      const received = await receiveAll(client)
      if (how !== 1) client.end()
      if (how === 5) return received.sha256 === patternHash(size, size % 1_000)
      return how === 3 ? received.failure === 'ECONNRESET' : received.sha256 === patternHash(size, size)
    })
    const outcomes = await Promise.all(connections)
    assert.equal(outcomes.filter((right) => !right).length, 0)
    await limpid.recorded(told + count, 30_000)
    await sleep(200)
    const records = limpid.records.slice(told)
    assert.equal(records.length, count)
    assert.equal(new Set(records.map((record) => record.id)).size, count)
    const reasons: Record<string, number> = {}
    for (const record of records) {
      // a client may reset before its upstream has answered
      const reason = record.reason === 'client-gone' ? 'client-reset' : record.reason
      reasons[reason] = (reasons[reason] ?? 0) + 1
    }
    assert.deepEqual(reasons, expected)
    await until(() => server.connections.size === 0, 'end of all connections at the server')
    const { flowsOpen, waitingBytes, pipesOpen } = await limpid.stats()
    assert.deepEqual({ flowsOpen, waitingBytes }, { flowsOpen: 0, waitingBytes: 0 })
    assert.ok(pipesOpen <= 32, `${pipesOpen} pipes are kept for the next bulk flows`)
    assert.equal(await ownDescriptors(), settledDescriptors)
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  })
}

async function answerAndReset(socket: Socket, size: number): Promise<void> {
  await sendPattern(socket, size, size % 1_000)
  socket.resetAndDestroy()
}

async function openOneFlow(limpid: LimpidProcess): Promise<void> {
  const endpoint = { address: ADDRESSES[4].z, port: 81 }
  await using _server = await serve(lab.z, endpoint, (socket) => void socket.end())
  const client = lab.y.connect(endpoint)
  client.end()
  await receiveAll(client)
  await limpid.recorded(1)
  await sleep(500) // what was needed to get ready is over
}

function ringsOf(pid: number): number {
  const folder = `/proc/${pid}/fd`
  return readdirSync(folder).filter((fd) => readlinkSync(`${folder}/${fd}`) === 'anon_inode:[io_uring]').length
}
