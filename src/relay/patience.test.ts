import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sleep, until } from '../lab/traffic.fixture.ts'
import { connectTo, readAll, startForwarder, startServer } from '../proxy/proxy.fixture.ts'
import { EAGAIN } from '../sys/errno.ts'
import { ffi } from '../sys/ffi.ts'
import {
  acceptConnection,
  bindSocket,
  closeFd,
  finishWriting,
  listenSocket,
  localEndpoint,
  openTcp,
  receive,
  startConnect,
  transmit,
} from '../sys/socket.ts'

const PATIENT = { connectMs: 1_000, idleMs: 0, halfCloseMs: 0, deadPeerMs: 30_000 }

test('a client that pauses reading for longer than deadPeerMs gets all bytes afterwards: its host answers', async () => {
  const SIZE = 30_000_000
  await using server = await startServer((socket) => socket.end(Buffer.alloc(SIZE)))
  await using forwarder = await startForwarder(server.address, { timeouts: { ...PATIENT, deadPeerMs: 1_500 } })
  const client = connectTo(forwarder.address)
  client.pause()
  await sleep(5_000)
  assert.equal((await readAll(client)).length, SIZE)
  client.end()
  assert.equal((await forwarder.nextRecord()).reason, 'closed')
})

test('a half-closed client that reads slowly but steadily is not timed out', async () => {
  const SIZE = 20_000_000
  await using server = await startServer((socket) => {
    socket.resume().on('end', () => socket.end(Buffer.alloc(SIZE)))
  })
  await using forwarder = await startForwarder(server.address, { timeouts: { ...PATIENT, halfCloseMs: 500 } })
  const client = openTcp(4)
  ffi.setsockopt(client, 1, 8, Int32Array.of(16_384), 4) // SO_RCVBUF: the rest waits at the proxy
  startConnect(client, forwarder.address)
  await sleep(20)
  finishWriting(client)
  const buffer = new Uint8Array(8_192)
  const startedAt = performance.now()
  let got = 0
  while (performance.now() - startedAt < 4_000) {
    const count = receive(client, buffer, buffer.length)
    if (count > 0) got += count
    assert.notEqual(count, 0)
    await sleep(10)
  }
  assert.equal(forwarder.records.length, 0, `after ${got} bytes`)
  assert.ok(got > 100_000, `${got} bytes`)
  closeFd(client)
})

test('an answer that a server gives just before it resets reaches the client', async () => {
  const listening = openTcp(4)
  bindSocket(listening, { address: '127.0.0.1', port: 0 })
  listenSocket(listening, 64)
  await using forwarder = await startForwarder(localEndpoint(listening))
  let answered = 0
  for (let round = 0; round < 50; round++) {
    const client = openTcp(4)
    startConnect(client, forwarder.address)
    let accepted = acceptConnection(listening)
    while (typeof accepted === 'number') {
      await sleep(1)
      accepted = acceptConnection(listening)
    }
    transmit(client, Buffer.from('POST'), 4)
    await sleep(3)
    transmit(client, Buffer.from('more'), 4) // the proxy hears of this first, and finds the upstream dead
    transmit(accepted.fd, Buffer.from('answer'), 6)
    closeFd(accepted.fd) // with 'POST' unread, so this is a reset
    let count = receive(client, new Uint8Array(16), 16)
    for (let waits = 0; count === -EAGAIN && waits < 500; waits++) {
      await sleep(1)
      count = receive(client, new Uint8Array(16), 16)
    }
    if (count === 6) answered++
    closeFd(client)
  }
  closeFd(listening)
  assert.equal(answered, 50)
})

test('urgent bytes and a FIN behind bulk data arrive whole, in their place', async () => {
  let received: Uint8Array = new Uint8Array(0)
  let reading = (): void => {}
  await using server = await startServer((socket) => {
    socket.pause()
    reading = () =>
      void readAll(socket).then((bytes) => {
        received = bytes
        socket.end()
      })
  })
  await using forwarder = await startForwarder(server.address, { timeouts: PATIENT })
  const client = openTcp(4)
  startConnect(client, forwarder.address)
  await until(() => server.connections.size === 1, 'connection')
  const bulk = new Uint8Array(1 << 18).fill(65)
  let sent = 0
  for (let i = 0; i < 150; i++) {
    const count = transmit(client, bulk, bulk.length)
    if (count > 0) sent += count
    if (i % 10 === 0) await sleep(2)
  }
  reading()
  await sleep(20)
  const MSG_OOB = 1
  const tail = Buffer.from('!the tail behind the urgent byte')
  const urgent = ffi.send(client, tail, 1, MSG_OOB)
  const rest = transmit(client, tail.subarray(1), tail.length - 1)
  assert.deepEqual([urgent, rest], [1, tail.length - 1])
  finishWriting(client)
  const record = await forwarder.nextRecord()
  closeFd(client)
  assert.equal(record.reason, 'closed')
  assert.equal(received.length, sent + tail.length)
  assert.equal(Buffer.from(received.subarray(-tail.length)).toString(), tail.toString())
})
