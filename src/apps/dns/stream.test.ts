import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { encoded, queryFor } from '../../inspect/dns.fixture.ts'
import { AppUnderTest, addresses, answerTo, decoded, dnsListener } from './app.fixture.ts'
import { framed } from './frames.ts'
import { serve, streamServer } from './stream.fixture.ts'

const WWW = 'www.example.org'
const nameOf = (message: Uint8Array) => decoded(message).questions![0]!.name
const answering = (message: Buffer, socket: Socket) =>
  void socket.write(framed(answerTo(message, addresses(nameOf(message), 300, '192.0.2.1'))))

test('a query goes to the server that was asked, under another id, and its answer is kept for UDP too', async () => {
  const ids: number[] = []
  await using server = await streamServer((message, socket) => {
    ids.push(message.readUInt16BE(0))
    answering(message, socket)
  })
  const { app, reply } = bound(new AppUnderTest())
  await using stream = await serve(app, { '': server.endpoint })
  stream.send(queryFor(WWW, { id: 11 }))
  assert.equal(decoded((await stream.next())!).id, 11)
  stream.send(queryFor(WWW, { id: 12 }))
  assert.equal(decoded((await stream.next())!).id, 12)
  assert.equal(ids.length, 1, 'the second was answered from the cache')
  assert.deepEqual(stream.dialled, [undefined])
  assert.equal(reply(queryFor(WWW)).answers!.length, 1)
})

function bound(under: AppUnderTest) {
  return { app: under.app, reply: (bytes: Uint8Array) => under.reply(bytes) }
}

test('pipelined queries with one id are answered in whatever order the server chooses, over one connection', async () => {
  const waiting: Buffer[] = []
  await using server = await streamServer((message, socket) => {
    waiting.push(message)
    if (waiting.length === 20) for (const one of waiting.reverse()) answering(one, socket)
  })
  const { app } = new AppUnderTest()
  await using stream = await serve(app, { '': server.endpoint })
  stream.send(...Array.from({ length: 20 }, (_, i) => queryFor(`${i}.example`, { id: 5 })))
  for (let i = 19; i >= 0; i--) {
    const { id, questions } = decoded((await stream.next())!)
    assert.deepEqual([id, questions![0]!.name], [5, `${i}.example`])
  }
  assert.equal(server.sockets.length, 1)
})

test('more queries than may wait are taken when others are answered', async () => {
  const waiting: [Buffer, Socket][] = []
  let most = 0
  await using server = await streamServer((message, socket) => {
    waiting.push([message, socket])
    most = Math.max(most, waiting.length)
    setImmediate(() => answering(...waiting.shift()!))
  })
  const { app } = new AppUnderTest()
  await using stream = await serve(app, { '': server.endpoint })
  stream.send(...Array.from({ length: 500 }, (_, i) => queryFor(`${i}.example`)))
  for (let i = 0; i < 500; i++) assert.ok((await stream.next()) !== undefined)
  assert.ok(most <= 64, `${most} waited`)
})

test('a message may come byte by byte, and rules answer without a server', async () => {
  const { app } = new AppUnderTest(dnsListener('{ rules: [{ suffixes: ads.example, then: nxdomain }] }'))
  await using stream = await serve(app, {})
  stream.client.setNoDelay(true)
  for (const byte of framed(queryFor('x.ads.example'))) {
    stream.client.write(Uint8Array.of(byte))
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.equal(decoded((await stream.next())!).rcode, 'NXDOMAIN')
  assert.deepEqual(stream.dialled, [])
})

test('a client that has ended its side still gets its answers, and then the end', async () => {
  await using server = await streamServer((message, socket) => void setImmediate(() => answering(message, socket)))
  const { app } = new AppUnderTest()
  await using stream = await serve(app, { '': server.endpoint })
  stream.client.end(Buffer.concat([framed(queryFor('a.example')), framed(queryFor('b.example'))]))
  assert.deepEqual(
    new Set([nameOf((await stream.next())!), nameOf((await stream.next())!)]),
    new Set(['a.example', 'b.example']),
  )
  assert.equal(await stream.next(), undefined)
  await stream.served
})

test('a forged or foreign answer of the server is left out', async () => {
  await using server = await streamServer((message, socket) => {
    const other = answerTo(message, {})
    other[13] = other[13]! ^ 1
    const stranger = answerTo(message, {})
    stranger[0] = stranger[0]! ^ 1
    socket.write(Buffer.concat([framed(other), framed(stranger), framed(Uint8Array.of(1, 2, 3))]))
    answering(message, socket)
  })
  const { app } = new AppUnderTest()
  await using stream = await serve(app, { '': server.endpoint })
  stream.send(queryFor(WWW))
  assert.equal(decoded((await stream.next())!).answers!.length, 1)
  const { answersMismatched, answersUnasked } = app.stats()
  assert.deepEqual([answersMismatched, answersUnasked], [1, 2])
})

test('a server that the client dialled and that refuses is a reset to the client', async () => {
  const { app } = new AppUnderTest()
  await using stream = await serve(app, {})
  stream.send(queryFor(WWW))
  assert.equal(await stream.next(), undefined)
  await stream.served
  assert.equal(app.stats().dialsFailed, 1)
})

test('where an upstream refuses or hangs up, the next is asked; when none is left the client gets SERVFAIL', async () => {
  await using hangsUp = await streamServer((_, socket) => void socket.destroy())
  await using answers = await streamServer(answering)
  const { app } = new AppUnderTest(dnsListener('{ upstreams: ["10.0.4.2:1001", "10.0.4.2:1002"], cache: off }'))
  for (const first of [undefined, hangsUp.endpoint]) {
    await using stream = await serve(app, { 1001: first, 1002: answers.endpoint })
    stream.send(queryFor(WWW, { id: 3 }))
    const { id, rcode } = decoded((await stream.next())!)
    assert.deepEqual([id, rcode], [3, 'NOERROR'])
  }
  await using stream = await serve(app, {})
  stream.send(queryFor(WWW, { id: 4 }))
  const { id, rcode } = decoded((await stream.next())!)
  assert.deepEqual([id, rcode], [4, 'SERVFAIL'])
})

test('rules send queries of one stream to several servers', async () => {
  await using one = await streamServer(answering)
  await using two = await streamServer(answering)
  const rules = '[{ suffixes: corp.example, then: forward, to: "10.0.4.2:1002" }]'
  const { app } = new AppUnderTest(dnsListener(`{ rules: ${rules} }`))
  await using stream = await serve(app, { '': one.endpoint, 1002: two.endpoint })
  stream.send(queryFor('a.corp.example'), queryFor(WWW))
  assert.ok((await stream.next()) !== undefined && (await stream.next()) !== undefined)
  assert.deepEqual(stream.dialled, [{ address: '10.0.4.2', port: 1002 }, undefined])
  assert.deepEqual([one.sockets.length, two.sockets.length], [1, 1])
})

test('a zone transfer passes with all its messages', async () => {
  await using server = await streamServer((message, socket) => {
    const first = answerTo(message, addresses('example.org', 60, '192.0.2.1'))
    const later = encoded({
      type: 'response',
      id: message.readUInt16BE(0),
      answers: addresses('example.org', 60, '192.0.2.2').answers!,
    })
    socket.write(Buffer.concat([first, later, later].map(framed)))
  })
  const { app } = new AppUnderTest()
  await using stream = await serve(app, { '': server.endpoint })
  stream.send(queryFor('example.org', { type: 'AXFR', id: 21 }))
  for (let i = 0; i < 3; i++) assert.equal(decoded((await stream.next())!).id, 21)
  assert.equal(app.stats().cacheEntries, 0)
})

test('a malformed query gets FORMERR, what is no query ends the stream', async () => {
  const { app } = new AppUnderTest()
  await using stream = await serve(app, {})
  const none = queryFor(WWW, { id: 8 })
  none[5] = 0
  stream.send(none)
  assert.deepEqual([...(await stream.next())!], [0, 8, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0])
  stream.send(Uint8Array.of(1, 2, 3))
  assert.equal(await stream.next(), undefined)
  assert.equal(app.stats().streamsMalformed, 2)
})

test('a stream that is idle ends, with the server’s', { timeout: 30_000 }, async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout'] })
  await using server = await streamServer(() => {})
  const { app } = new AppUnderTest()
  const stream = await serve(app, { '': server.endpoint })
  stream.send(queryFor(WWW))
  while (server.sockets.length === 0) await new Promise((resolve) => setImmediate(resolve))
  context.mock.timers.tick(10_000)
  await stream.served
  await stream[Symbol.asyncDispose]()
})

test('a client that goes away while the server is dialled leaves nothing', async () => {
  await using server = await streamServer(answering)
  const { app } = new AppUnderTest()
  const stream = await serve(app, { '': server.endpoint })
  stream.send(queryFor(WWW))
  stream.client.resetAndDestroy()
  await stream.served
  while (stream.dialled.length > 0 && server.sockets.some((socket) => !socket.destroyed)) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  await stream[Symbol.asyncDispose]()
})
