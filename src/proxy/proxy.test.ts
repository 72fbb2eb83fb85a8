import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { until } from '../lab/traffic.fixture.ts'
import { connectTo, openDescriptors, readAll, startForwarder, startServer, whenClosed } from './proxy.fixture.ts'

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const QUICK = { connectMs: 300, idleMs: 200, halfCloseMs: 200, deadPeerMs: 30_000 }

for (const size of [0, 1, 65_536, 65_537, 5_000_000]) {
  test(`${size} bytes each way arrive unchanged, and the record counts them`, async () => {
    const up = randomBytes(size)
    const down = randomBytes(size)
    let received: Buffer | undefined
    await using server = await startServer(async (socket) => {
      received = await readAll(socket)
      socket.end(down)
    })
    await using forwarder = await startForwarder(server.address)
    const client = connectTo(forwarder.address)
    client.end(up)
    assert.equal(sha(await readAll(client)), sha(down))
    assert.equal(sha(received!), sha(up))
    const record = await forwarder.nextRecord()
    assert.equal(record.reason, 'closed')
    assert.equal(record.bytesClientToUpstream, size)
    assert.equal(record.bytesUpstreamToClient, size)
    assert.deepEqual(record.upstream, server.address)
    assert.equal(record.refused, false)
  })
}

test("bytes sent after the client's FIN still reach the client", async () => {
  await using server = await startServer((socket) => {
    socket.resume().on('end', () => {
      socket.write('after ')
      setTimeout(() => socket.end('the FIN'), 50)
    })
  })
  await using forwarder = await startForwarder(server.address)
  const client = connectTo(forwarder.address)
  client.end('x')
  assert.equal((await readAll(client)).toString(), 'after the FIN')
  assert.equal((await forwarder.nextRecord()).reason, 'closed')
})

test("bytes sent after the server's FIN still reach the server", async () => {
  let received = ''
  await using server = await startServer(async (socket) => {
    socket.end('bye')
    received = (await readAll(socket)).toString()
  })
  await using forwarder = await startForwarder(server.address)
  const client = connectTo(forwarder.address)
  assert.equal((await readAll(client)).toString(), 'bye')
  client.write('still ')
  await new Promise((resolve) => setTimeout(resolve, 50))
  client.end('here')
  assert.equal((await forwarder.nextRecord()).reason, 'closed')
  assert.equal(received, 'still here')
})

test("a client's reset reaches the server as a reset", async () => {
  let failure: NodeJS.ErrnoException | undefined
  let ended = false
  await using server = await startServer((socket) => {
    socket.on('error', (error) => {
      failure = error
    })
    socket.resume().on('end', () => {
      ended = true
    })
  })
  await using forwarder = await startForwarder(server.address)
  const client = connectTo(forwarder.address)
  client.write('half a request')
  await until(() => server.connections.size === 1, 'connection')
  client.resetAndDestroy()
  assert.equal((await forwarder.nextRecord()).reason, 'client-reset')
  await until(() => failure !== undefined, 'reset at the server')
  assert.equal(failure?.code, 'ECONNRESET')
  assert.equal(ended, false)
})

test("a server's reset in the middle of a body reaches the client as a reset, never as an end", async () => {
  let cut = (): void => {}
  await using server = await startServer((socket) => {
    socket.write(Buffer.alloc(300_000))
    cut = () => socket.resetAndDestroy()
  })
  await using forwarder = await startForwarder(server.address)
  const client = connectTo(forwarder.address)
  // the reset comes after the client has read: libuv takes bytes and RST in one event for an end (uv__stream_io)
  client.on('data', () => client.bytesRead === 300_000 && cut())
  await assert.rejects(readAll(client), { code: 'ECONNRESET' })
  assert.equal((await forwarder.nextRecord()).reason, 'upstream-reset')
})

test('a refused upstream reaches the client as a reset within 50 ms', async () => {
  const server = await startServer(() => {})
  await server[Symbol.asyncDispose]() // the port is closed now
  await using forwarder = await startForwarder(server.address)
  const startedAt = performance.now()
  const client = connectTo(forwarder.address)
  await whenClosed(client)
  assert.equal(client.failure?.code, 'ECONNRESET')
  assert.ok(performance.now() - startedAt < 50)
  assert.equal((await forwarder.nextRecord()).reason, 'dial-refused')
})

test('an idle flow is reset on both sides after idleMs', async () => {
  let failure: NodeJS.ErrnoException | undefined
  await using server = await startServer((socket) => {
    socket.on('error', (error) => {
      failure = error
    })
    socket.resume()
  })
  await using forwarder = await startForwarder(server.address, { timeouts: QUICK })
  const client = connectTo(forwarder.address)
  await whenClosed(client)
  assert.equal(client.failure?.code, 'ECONNRESET')
  const record = await forwarder.nextRecord()
  assert.equal(record.reason, 'idle-timeout')
  assert.ok(record.durationMs >= 190 && record.durationMs < 600, `${record.durationMs}`)
  await until(() => failure !== undefined, 'reset at the server')
})

test('a flow that stays half-closed without bytes ends after halfCloseMs', async () => {
  await using server = await startServer((socket) => socket.resume())
  await using forwarder = await startForwarder(server.address, { timeouts: { ...QUICK, idleMs: 0 } })
  const client = connectTo(forwarder.address)
  client.end('over')
  await whenClosed(client.resume())
  assert.equal((await forwarder.nextRecord()).reason, 'half-close-timeout')
})

test('a slow receiver stops the sender, and no more than one read waits in memory', async () => {
  let sent = 0
  let full = false
  await using server = await startServer((socket) => {
    const chunk = Buffer.alloc(262_144)
    const more = (): void => {
      while (sent < 200_000_000 && socket.write(chunk)) sent += chunk.length
      if (socket.writableNeedDrain) full = true
    }
    socket.on('drain', more)
    more()
  })
  await using forwarder = await startForwarder(server.address)
  const client = connectTo(forwarder.address)
  client.pause()
  await until(() => full, 'backpressure')
  await new Promise((resolve) => setTimeout(resolve, 300))
  const stalledAt = sent
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.equal(sent, stalledAt, 'the sender does not go on')
  assert.ok(sent < 100_000_000)
  assert.ok(forwarder.proxy.stats().waitingBytes <= 65_536)
  client.destroy()
})

test('a client above flowsPerClient is refused with a reset, and served again when another flow ended', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  await using forwarder = await startForwarder(server.address, {}, { flowsPerClient: 2 })
  const first = connectTo(forwarder.address)
  const second = connectTo(forwarder.address)
  await until(() => forwarder.proxy.stats().flowsOpen === 2, 'two flows')
  const third = connectTo(forwarder.address)
  await whenClosed(third)
  const refused = await forwarder.nextRecord()
  assert.equal(refused.reason, 'client-limit')
  assert.equal(refused.refused, true)
  first.end()
  await readAll(first)
  const fourth = connectTo(forwarder.address)
  fourth.end('again')
  assert.equal((await readAll(fourth)).toString(), 'again')
  second.destroy()
})

test('at the limit of flows further ones wait in the backlog and are served when one ends', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  await using forwarder = await startForwarder(server.address, {}, { flows: 3 })
  const early = [1, 2, 3].map(() => connectTo(forwarder.address))
  await until(() => forwarder.proxy.stats().flowsOpen === 3, 'three flows')
  const late = connectTo(forwarder.address)
  late.end('late')
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.equal(forwarder.proxy.stats().flowsOpen, 3)
  early[0]!.end()
  assert.equal((await readAll(late)).toString(), 'late')
  for (const client of early) client.destroy()
})

test('urgent bytes stay in the stream, in their place', async () => {
  let received: Buffer | undefined
  await using server = await startServer(async (socket) => {
    received = await readAll(socket)
    socket.end()
  })
  await using forwarder = await startForwarder(server.address)
  const { ffi } = await import('../sys/ffi.ts')
  const { closeFd, openTcp, startConnect } = await import('../sys/socket.ts')
  const fd = openTcp(4)
  startConnect(fd, forwarder.address)
  await until(() => server.connections.size === 1, 'connection')
  const MSG_OOB = 1
  ffi.send(fd, Buffer.from('abc'), 3, 0)
  ffi.send(fd, Buffer.from('U'), 1, MSG_OOB)
  ffi.send(fd, Buffer.from('def'), 3, 0)
  ffi.shutdown(fd, 1)
  await forwarder.nextRecord()
  closeFd(fd)
  assert.equal(received?.toString(), 'abcUdef')
})

test('close() resets every flow with the reason shutdown and leaves no descriptor', async () => {
  await using server = await startServer((socket) => socket.resume())
  const before = openDescriptors()
  const forwarder = await startForwarder(server.address)
  const clients = Array.from({ length: 10 }, () => connectTo(forwarder.address))
  await until(() => forwarder.proxy.stats().flowsOpen === 10, 'flows')
  await forwarder.proxy.close()
  assert.deepEqual(
    forwarder.records.map((record) => record.reason),
    Array(10).fill('shutdown'),
  )
  await Promise.all(clients.map(whenClosed))
  await until(() => server.connections.size === 0, 'end at the server')
  await until(() => openDescriptors() <= before, 'descriptors given back')
})

test('drain() lets flows end by themselves before its deadline', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  const forwarder = await startForwarder(server.address)
  const client = connectTo(forwarder.address)
  client.write('a')
  await until(() => forwarder.proxy.stats().flowsOpen === 1, 'flow')
  const drained = forwarder.proxy.drain(5_000)
  client.end('b')
  assert.equal((await readAll(client)).toString(), 'ab')
  await drained
  assert.equal((await forwarder.nextRecord()).reason, 'closed')
})

test('a second proxy on the same port gets LIMPID_LISTEN and leaves nothing open', async () => {
  await using server = await startServer(() => {})
  await using forwarder = await startForwarder(server.address)
  const before = openDescriptors()
  await assert.rejects(startForwarder(server.address, { listen: [forwarder.address] }), {
    code: 'LIMPID_LISTEN',
    message: /cannot listen on 127\.0\.0\.1:\d+: bind\(.*\) failed: EADDRINUSE/,
  })
  assert.equal(openDescriptors(), before)
})

for (const [listen, to] of [
  ['127.0.0.1', '127.0.0.1'],
  ['127.0.0.1', '0.0.0.0'],
  ['0.0.0.0', '127.0.0.1'],
  ['0.0.0.0', '127.9.9.9'],
] as const) {
  test(`listening on ${listen}, a flow that would be dialled to ${to} and the same port is refused as a loop`, async () => {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    await using forwarder = await startForwarder({ address: to, port }, { listen: [{ address: listen, port }] })
    const client = connectTo({ address: '127.0.0.1', port })
    await whenClosed(client)
    assert.equal((await forwarder.nextRecord()).reason, 'loop')
    assert.equal(forwarder.proxy.stats().dials, 0)
  })
}

test('a listener and a server on the same port of two of our addresses are no loop', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  const listen = [{ address: '127.0.0.7', port: server.address.port }]
  await using forwarder = await startForwarder(server.address, { listen })
  const client = connectTo(forwarder.address)
  client.end('ping')
  assert.equal((await readAll(client)).toString(), 'ping')
})
