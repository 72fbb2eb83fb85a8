import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const endpoint = { address: ADDRESSES[4].z, port: 80 }
const RUN = ['run', '--intercept', 'tproxy', '--source', 'client'] as const
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

test('T7: with 256 descriptors and 500 connections it stays alive, idles, and is back at once', async () => {
  await using server = await serve(lab.z, endpoint, (socket) => socket.pipe(socket))
  const limpid = await LimpidProcess.start(lab.x, RUN, { wrapper: ['prlimit', '--nofile=256'] })
  const clients: Socket[] = []
  for (let i = 0; i < 500; i++) {
    const client = lab.y.connect(endpoint)
    client.on('error', () => {}).on('end', () => client.end())
    clients.push(client.resume())
  }
  await until(() => server.connections.size >= 50, 'flows')
  await sleep(300)
  const cpuBefore = limpid.cpuSeconds()
  await sleep(2_000)
  const cpu = (limpid.cpuSeconds() - cpuBefore) / 2
  assert.ok(cpu < 0.05, `${cpu * 100} % CPU at the limit`)
  assert.ok(limpid.descriptors() < 256 - 16, `${limpid.descriptors()} descriptors`)
  const full = server.connections.size
  assert.ok(full < 120, `${full} flows`)
  const served = server.peers.length
  for (const socket of server.connections) socket.end()
  const freedAt = performance.now()
  await until(() => server.peers.length >= served + full, 'as many flows as were ended')
  const backMs = performance.now() - freedAt
  console.log(
    `T7: ${(cpu * 100).toFixed(1)} % CPU at the limit, ${full} more served ${backMs.toFixed(0)} ms after as many ended`,
  )
  assert.ok(backMs < 100, `${backMs} ms`)
  for (const client of clients) client.destroy()
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('T36: client-port keeps the port, and falls back to another when it is taken', async () => {
  await using server = await serve(lab.z, endpoint, (socket) => socket.pipe(socket))
  const limpid = await LimpidProcess.start(lab.x, ['run', '--intercept', 'tproxy', '--source', 'client-port'])
  const from = { address: ADDRESSES[4].y, port: 40_123 }
  const first = lab.y.connect(endpoint, { from })
  await once(first, 'connect')
  await until(() => server.peers.length === 1, 'connection')
  assert.deepEqual(server.peers[0], from)
  first.end()
  await receiveAll(first)
  assert.equal((await limpid.nextRecord()).source, 'client-port')
  const second = lab.y.connect(endpoint, { from: { ...from, port: 40_124 } })
  second.end('a')
  await receiveAll(second)
  // the client may reuse its port after a second (tcp(7), tcp_tw_reuse), the gateway has it in TIME_WAIT for a minute
  lab.y.setSysctls({ 'net.ipv4.tcp_tw_reuse': '1' })
  assert.equal((await limpid.nextRecord()).source, 'client-port')
  await sleep(1_100)
  const startedAt = performance.now()
  const third = lab.y.connect(endpoint, { from: { ...from, port: 40_124 } })
  third.end('again')
  assert.equal((await receiveAll(third)).bytes, 5)
  const record = await limpid.nextRecord()
  assert.equal(record.reason, 'closed')
  assert.equal(record.sourceAddr?.address, from.address)
  // a SYN that reuses a 4-tuple in TIME_WAIT reaches the listener at once, not after the client's retry of 1 s
  assert.ok(performance.now() - startedAt < 900)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('T36: 30,000 flows from one client to one server, which the client closes: no bind error', async () => {
  const FLOWS = 30_000
  const PARALLEL = 64
  // more than the gateway's own range of ports (28,232), all of which end in TIME_WAIT there
  lab.y.setSysctls({ 'net.ipv4.ip_local_port_range': '1024 65535' })
  await using _server = await serve(lab.z, endpoint, (socket) => {
    socket.on('data', (byte) => socket.write(byte)).on('end', () => socket.end())
  })
  const limpid = await LimpidProcess.start(lab.x, RUN)
  let started = 0
  let served = 0
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      while (started < FLOWS) {
        started++
        const client = lab.y.connect(endpoint)
        client.write('x')
        client.once('data', () => client.end())
        if ((await receiveAll(client)).bytes === 1) served++
      }
    }),
  )
  assert.equal(served, FLOWS)
  await limpid.recorded(FLOWS)
  assert.equal(limpid.records.filter(({ reason }) => reason !== 'closed').length, 0)
  assert.equal(limpid.records.filter(({ sourceAddr }) => sourceAddr?.address !== ADDRESSES[4].y).length, 0)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})
