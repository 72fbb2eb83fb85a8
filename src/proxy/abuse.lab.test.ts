import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import type { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ACK, FIN, PSH, RawSender, RST, SYN, URG } from '../lab/raw.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { patternHash, receiveAll, sendPattern, serve, sleep } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'

await enterNamespaces()

const PORT = 50_080
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

/** Runs `work` beside a running Limpid, and checks that it stops cleanly. */
async function withLimpid(args: readonly string[], work: (limpid: LimpidProcess) => Promise<void>): Promise<void> {
  const limpid = await LimpidProcess.start(lab.x, args)
  try {
    await work(limpid)
  } finally {
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  }
}

/** How a connection ended, and after how many milliseconds. */
async function tryConnect(
  host: Host,
  to: Endpoint,
  from?: Endpoint,
): Promise<{ failure: string | undefined; ms: number }> {
  const startedAt = performance.now()
  const socket = host.connect(to, from === undefined ? {} : { from })
  socket.write('hello')
  const { failure } = await receiveAll(socket)
  return { failure, ms: performance.now() - startedAt }
}

const LISTENS = [
  { what: 'loopback (the default)', args: [] },
  { what: 'every address', args: ['--listen', `0.0.0.0:${PORT}`, '--listen', `[::]:${PORT}`] },
]

for (const { what, args } of LISTENS) {
  test(`T1: dialling a listener on ${what} ends at once, from every side, and dials nothing`, async () => {
    await withLimpid(['run', '--intercept', 'tproxy', '--source', 'client', ...args], async (limpid) => {
      const sockets = (await lab.x.run('ss', ['-Htan'])).split('\n').length
      const attempts = [
        ...[ADDRESSES[4].xy, ADDRESSES[4].xz, ADDRESSES[6].xy, ADDRESSES[6].xz].map((address) => ({
          host: lab.y,
          address,
        })),
        ...['127.0.0.1', '127.9.9.9', ADDRESSES[4].xy, ADDRESSES[4].xz, '::1', ADDRESSES[6].xy].map((address) => ({
          host: lab.x,
          address,
        })),
      ]
      for (const { host, address } of attempts) {
        const { failure, ms } = await tryConnect(host, { address, port: PORT })
        assert.match(`${failure}`, /ECONNRESET|ECONNREFUSED/, `${host.name} → ${address}`)
        assert.ok(ms < 100, `${host.name} → ${address}: ${ms} ms`)
      }
      await sleep(50)
      for (const record of limpid.records) assert.equal(record.reason, 'loop')
      assert.ok(limpid.records.length >= 2, 'loopback dials reach the listener and are refused there')
      assert.equal((await lab.x.run('ss', ['-Htan'])).split('\n').length, sockets, 'no extra socket')
    })
  })
}

test('T3: our power to use foreign sources is not lent to ourselves, loopback, or the other side', async () => {
  await using server = await serve(lab.z, { address: ADDRESSES[4].z, port: 80 }, (socket) => socket.end('x'))
  await withLimpid(['relay', '-l', '-T', `${PORT}`, ADDRESSES[4].z, '80'], async (limpid) => {
    const sources = [
      { address: '127.0.0.1', to: '127.0.0.1' },
      { address: '127.0.0.9', to: '127.0.0.1' },
      { address: ADDRESSES[4].xz, to: ADDRESSES[4].xy },
    ]
    for (const { address, to } of sources) {
      const { failure } = await tryConnect(lab.x, { address: to, port: PORT }, { address, port: 0 })
      assert.equal(failure, 'ECONNRESET', address)
      assert.equal((await limpid.nextRecord()).reason, 'source')
    }
    const { failure } = await tryConnect(lab.z, { address: ADDRESSES[4].xz, port: PORT })
    assert.equal(failure, 'ECONNRESET', "the server's own address")
    assert.equal((await limpid.nextRecord()).reason, 'source')
  })
  assert.deepEqual(server.peers, [])
})

test('T3: what comes in on another interface than the intercepted one is not relayed', async () => {
  await using server = await serve(lab.y, { address: ADDRESSES[4].y, port: 80 }, (socket) => socket.end('y'))
  await withLimpid(['run', '--intercept', 'tproxy', '--source', 'client', '--from', X_TO_Y], async (limpid) => {
    const { failure } = await tryConnect(lab.z, { address: ADDRESSES[4].y, port: 80 })
    assert.equal(failure, undefined)
    assert.equal(server.peers.length, 1, 'forwarded by the kernel')
    const forged = new RawSender(lab.z)
    for (let i = 0; i < 50; i++) {
      forged.send({ from: { address: ADDRESSES[4].y, port: 1_024 + i }, to: server.endpoint, flags: SYN, seq: i })
    }
    forged.close()
    await sleep(200)
    assert.equal(limpid.records.length, 0)
  })
})

test('T4: under 2,000 SYN/s every request is served, and each dial is a request', async () => {
  const FLOOD_MS = 4_000
  const endpoint = { address: ADDRESSES[4].z, port: 80 }
  await lab.x.run('ip', ['route', 'add', '10.9.0.0/16', 'via', ADDRESSES[4].y])
  await lab.y.run('ip', ['route', 'add', 'blackhole', '10.9.0.0/16'])
  await using server = await serve(lab.z, endpoint, (socket) => socket.pipe(socket))
  await withLimpid(['run', '--intercept', 'tproxy', '--source', 'client'], async (limpid) => {
    const sender = new RawSender(lab.y)
    const startedAt = performance.now()
    let sent = 0
    const flood = setInterval(() => {
      const due = Math.min(8_000, (performance.now() - startedAt) * 2)
      for (; sent < due; sent++) {
        const address = `10.9.${(sent >> 8) & 255}.${sent & 255}`
        sender.send({ from: { address, port: 1_024 + (sent % 60_000) }, to: endpoint, flags: SYN, seq: sent * 64_000 })
      }
    }, 5)
    let served = 0
    let requests = 0
    while (performance.now() - startedAt < FLOOD_MS) {
      const client = lab.y.connect(endpoint)
      client.end('ping')
      requests++
      if ((await receiveAll(client)).bytes === 4) served++
      await sleep(10)
    }
    clearInterval(flood)
    sender.close()
    assert.ok(sent >= 7_000, `${sent} SYNs`)
    assert.equal(served, requests)
    assert.ok(requests > 50, `${requests} requests`)
    await limpid.recorded(requests)
    assert.equal(limpid.records.length, requests)
    assert.equal(server.peers.length, requests)
  })
})

test('T10: blind resets, a reset storm and nonsense flags leave a transfer whole', async () => {
  const SIZE = 60_000_000
  const endpoint = { address: ADDRESSES[4].z, port: 80 }
  let got = ''
  await using _server = await serve(lab.z, endpoint, async (socket) => {
    got = (await receiveAll(socket)).sha256
    socket.end('done')
  })
  await withLimpid(['run', '--intercept', 'tproxy', '--source', 'client-port'], async (limpid) => {
    const client = lab.y.connect(endpoint)
    await once(client, 'connect')
    const from = { address: ADDRESSES[4].y, port: client.localPort! }
    const senders = [
      { sender: new RawSender(lab.y), from, to: endpoint },
      { sender: new RawSender(lab.z), from: endpoint, to: from },
    ]
    const flags = [RST, RST | ACK, SYN, SYN | ACK, SYN | FIN, 0, FIN | PSH | URG, SYN | RST, 0x3f]
    let sent = 0
    const storm = setInterval(() => {
      for (let i = 0; i < 100 && sent < 20_000; i++, sent++) {
        const { sender, ...ends } = senders[sent % 2]!
        // a quarter of the sequence space away from anything: blind
        const seq = (Math.random() * 2 ** 32) >>> 0
        sender.send({ ...ends, flags: flags[sent % flags.length]!, seq, ack: seq ^ 0x5555_5555 })
      }
    }, 2)
    await sendPattern(client, 7, SIZE)
    client.end()
    const received = await receiveAll(client)
    clearInterval(storm)
    for (const { sender } of senders) sender.close()
    assert.deepEqual([received.failure, received.bytes], [undefined, 4])
    assert.equal(got, patternHash(7, SIZE))
    assert.ok(sent > 1_000, `${sent} packets`)
    assert.equal((await limpid.nextRecord()).reason, 'closed')
  })
})
