import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { createProxy } from '../apps/create-proxy.ts'
import { until } from '../lab/traffic.fixture.ts'
import { bindSocket, closeFd, listenSocket, localEndpoint, openTcp, startConnect } from '../sys/socket.ts'
import { dialTcp, relayTcp } from './dial-tcp.ts'
import { listenTcp } from './listen-tcp.ts'
import { connectTo, openDescriptors, readAll, startForwarder, startServer } from './proxy.fixture.ts'

test('dials and listeners that ended leave nothing on their AbortSignal', async () => {
  await using server = await startServer((socket) => socket.end())
  const { signal } = new AbortController()
  for (let i = 0; i < 5; i++) {
    ;(await dialTcp(server.address, { signal })).close()
    ;(await listenTcp({ address: '127.0.0.1', signal })).close()
  }
  assert.equal(getEventListeners(signal, 'abort').length, 0)
})

test('an abort ends a dial that nobody answers, with its reason', async () => {
  // a backlog that is full answers no SYN
  const listening = openTcp(4)
  bindSocket(listening, { address: '127.0.0.1', port: 0 })
  listenSocket(listening, 0)
  const address = localEndpoint(listening)
  const filling = [openTcp(4), openTcp(4)]
  for (const fd of filling) startConnect(fd, address)
  const controller = new AbortController()
  const unanswered = dialTcp(address, { signal: controller.signal })
  setTimeout(() => controller.abort(new Error('enough')), 50)
  await assert.rejects(unanswered, /enough/)
  await assert.rejects(dialTcp(address, { timeoutMs: 50 }), {
    code: 'LIMPID_DIAL_TIMEOUT',
    message: /^cannot dial 127\.0\.0\.1:\d+: no answer in 50 ms$/,
  })
  for (const fd of [listening, ...filling]) closeFd(fd)
})

test('a refused dial says so with both addresses', async () => {
  const server = await startServer(() => {})
  await server[Symbol.asyncDispose]()
  await assert.rejects(dialTcp(server.address, { source: { address: '127.0.0.1' } }), {
    code: /LIMPID_DIAL_REFUSED|LIMPID_CAPABILITY/,
    message: /cannot dial 127\.0\.0\.1:\d+ from 127\.0\.0\.1:0: /,
  })
})

test('a socket that was handed on cannot be relayed, and the other one is closed', async () => {
  await using server = await startServer((socket) => socket.resume())
  const before = openDescriptors()
  const client = await dialTcp(server.address)
  const upstream = await dialTcp(server.address)
  upstream.close()
  await assert.rejects(relayTcp(client, upstream), { code: 'LIMPID_USAGE' })
  assert.equal(client.isOpen, false)
  await until(() => server.connections.size === 0 || openDescriptors() <= before + 2, 'close')
})

test('several listeners share a port with reusePort, and a deferred one accepts once bytes are there', async () => {
  const first = await listenTcp({ address: '127.0.0.1', reusePort: true, deferSeconds: 5 })
  const second = await listenTcp({ ...first.address, reusePort: true })
  second.close()
  const client = await dialTcp(first.address)
  const accepted = first[Symbol.asyncIterator]().next()
  const early = await Promise.race([accepted, new Promise((resolve) => setTimeout(resolve, 100, 'nothing'))])
  assert.equal(early, 'nothing')
  client
    .toNetSocket()
    .on('error', () => {}) // what it sent is not read
    .end('x')
  const { value } = await accepted
  value!.close()
  first.close()
})

test('what is no address or no port is refused by name, not dialled as another one', async () => {
  for (const port of [70_000, -1, 1.5, Number.NaN, 1e9]) {
    await assert.rejects(listenTcp({ address: '127.0.0.1', port }), {
      code: 'LIMPID_USAGE',
      message: /expected a port/,
    })
    await assert.rejects(dialTcp({ address: '127.0.0.1', port }), { code: 'LIMPID_USAGE', message: /expected a port/ })
  }
  for (const address of ['localhost', '', undefined, '10.0.0.1:80']) {
    const to = { address: address as string, port: 80 }
    await assert.rejects(dialTcp(to), { code: 'LIMPID_USAGE', message: /^dialTcp: expected an IP address, found/ })
  }
  const source = { address: '::1' }
  await assert.rejects(dialTcp({ address: '127.0.0.1', port: 80 }, { source }), { code: 'LIMPID_USAGE' })
})

test('a second iteration of a listener is refused, and the first goes on', async () => {
  const listener = await listenTcp({ address: '127.0.0.1' })
  const first = listener[Symbol.asyncIterator]().next()
  await assert.rejects(listener[Symbol.asyncIterator]().next(), { code: 'LIMPID_USAGE' })
  const client = await dialTcp(listener.address)
  const { value } = await first
  assert.deepEqual(value?.clientAddr, client.localAddr)
  value!.close()
  client.close()
  listener.close()
})

test('a second listen() is refused and leaves the listeners of the first alone', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  await using forwarder = await startForwarder(server.address)
  await assert.rejects(forwarder.proxy.listen(), { code: 'LIMPID_USAGE' })
  const client = connectTo(forwarder.address)
  client.end('ping')
  assert.equal((await readAll(client)).toString(), 'ping')
})

test('a configuration that was not completed is refused with what to do', () => {
  assert.throws(() => createProxy({ listeners: [] } as never), { code: 'LIMPID_USAGE', cure: /defineConfig/ })
})
