import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProxy } from '../apps/create-proxy.ts'
import { until } from '../lab/traffic.fixture.ts'
import { connectTo, forwarderConfig, readAll, startServer, whenClosed } from './proxy.fixture.ts'
import type { FlowRecord } from './record.ts'

test('who begins to listen while a flow runs gets its record, without the source address that nobody wanted to know', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  await using proxy = createProxy(forwarderConfig(server.address))
  const [address] = await proxy.listen()
  const records: FlowRecord[] = []
  for (const count of [1, 2]) {
    const client = connectTo(address!)
    client.write('x')
    await until(() => client.bytesRead === 1, 'an echo')
    if (count === 1) proxy.on('flow', (record) => records.push(record))
    client.end()
    await readAll(client)
    await until(() => records.length === count, 'a record')
  }
  const [first, second] = records
  assert.deepEqual([first!.sourceAddr, first!.source, first!.bytesUpstreamToClient], [undefined, 'proxy', 1])
  assert.deepEqual([second!.sourceAddr?.address, second!.source], ['127.0.0.1', 'proxy'])
})

test('a hook that closes the proxy when the first flow ends is told of every flow once', async () => {
  await using server = await startServer((socket) => socket.pipe(socket))
  await using proxy = createProxy(forwarderConfig(server.address))
  const [address] = await proxy.listen()
  const reasons = new Map<number, string>()
  let closed: Promise<void> | undefined
  proxy.on('flow', ({ id, reason }) => {
    assert.equal(reasons.has(id), false)
    reasons.set(id, reason)
    closed ??= proxy.close()
  })
  const clients = [1, 2, 3].map(() => connectTo(address!).resume())
  await until(() => server.connections.size === 3, 'three connections')
  clients[1]!.end('x')
  await Promise.all(clients.map(whenClosed))
  await closed
  assert.deepEqual([...reasons.values()].sort(), ['closed', 'shutdown', 'shutdown'])
  await until(() => server.connections.size === 0, 'the end of the server’s connections')
})
