import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { createProxy } from '../apps/create-proxy.ts'
import { NO_POLICY } from '../config/policy.ts'
import type { PolicyConfig, PolicyMatch, Via } from '../config/policy-types.ts'
import { until } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'
import { connectTo, forwarderConfig, readAll, startServer, whenClosed } from './proxy.fixture.ts'
import type { FlowRecord } from './record.ts'

/** A forwarder whose every flow goes via a proxy that does what `serve` says. */
async function startVia(
  serve: (socket: Socket) => unknown,
  viaOf: (proxy: Endpoint) => Via,
  options: { readonly fastOpen?: boolean; readonly policy?: Partial<PolicyConfig> } = {},
) {
  const server = await startServer(serve)
  const { policy, ...listener } = options
  const config = forwarderConfig(server.address, { timeouts: { connectMs: 300 }, ...listener })
  const otherwise = { kind: 'via', via: viaOf(server.address), to: undefined, source: undefined } as const
  const proxy = createProxy({ ...config, policy: { ...NO_POLICY, otherwise, ...policy } })
  const records: FlowRecord[] = []
  proxy.on('flow', (record) => records.push(record))
  const [address] = await proxy.listen()
  return {
    address: address!,
    server,
    nextRecord: async () => {
      await until(() => records.length > 0, 'a flow record')
      return records.shift()!
    },
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

const socks5 = (proxy: Endpoint): Via => ({ kind: 'socks5', proxy, credentials: undefined, names: false })
const connect = (proxy: Endpoint): Via => ({ kind: 'connect', proxy, credentials: undefined, names: false })

for (const fastOpen of [false, true]) {
  test(`the header of the PROXY protocol comes before the client's bytes${fastOpen ? ', with Fast Open' : ''}`, async () => {
    const came: Buffer[] = []
    const serve = (socket: Socket): void =>
      void socket.on('data', (chunk) => came.push(chunk)).on('end', () => socket.end('bye'))
    await using via = await startVia(serve, () => ({ kind: 'proxy-protocol', version: 1 }), { fastOpen })
    const client = connectTo(via.address)
    client.end('hello')
    assert.equal((await readAll(client)).toString(), 'bye')
    const { port } = via.address
    assert.match(
      Buffer.concat(came).toString(),
      new RegExp(`^PROXY TCP4 127\\.0\\.0\\.1 127\\.0\\.0\\.1 \\d+ ${port}\r\nhello$`),
    )
    const { reason, bytesClientToUpstream, error } = await via.nextRecord()
    assert.deepEqual([reason, bytesClientToUpstream, error], ['closed', 5, undefined])
  })
}

test('what the server says at once, behind the answer of the proxy, reaches the client', async () => {
  const serve = (socket: Socket): void => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n220 mail.example\r\n')
      socket.once('data', (chunk) => socket.end(`you said ${chunk}`))
    })
  }
  await using via = await startVia(serve, connect)
  const client = connectTo(via.address)
  const [banner] = (await once(client, 'data')) as [Buffer]
  assert.equal(banner.toString(), '220 mail.example\r\n')
  client.end('QUIT')
  assert.equal((await readAll(client)).toString(), 'you said QUIT')
  const { reason, bytesUpstreamToClient } = await via.nextRecord()
  assert.deepEqual([reason, bytesUpstreamToClient], ['closed', 31])
})

test('an answer in single bytes, and a client that has said all and closed before', async () => {
  let said = ''
  const serve = async (socket: Socket): Promise<void> => {
    socket.setNoDelay(true).on('data', (chunk) => {
      said += chunk.toString('latin1')
    })
    socket.once('end', () => socket.end('bye'))
    await until(() => said.length === 3, 'a greeting')
    for (const byte of [5, 0]) await write(socket, byte)
    await until(() => said.length === 3 + 10, 'a request')
    for (const byte of [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]) await write(socket, byte)
  }
  await using via = await startVia(serve, socks5)
  const client = connectTo(via.address)
  client.end('early')
  assert.equal((await readAll(client)).toString(), 'bye')
  assert.equal(said.slice(13), 'early')
  assert.equal((await via.nextRecord()).reason, 'closed')
})

async function write(socket: Socket, byte: number): Promise<void> {
  socket.write(Uint8Array.of(byte))
  await new Promise((resolve) => setTimeout(resolve, 5))
}

const FAILURES: [string, (socket: Socket) => void, (proxy: Endpoint) => Via, string, RegExp][] = [
  [
    'refuses',
    (socket) => socket.once('data', () => socket.end(Uint8Array.of(5, 255))),
    socks5,
    'via-refused',
    /^socks5 127\.0\.0\.1:\d+: no way of auth/,
  ],
  [
    'refuses and resets',
    (socket) =>
      socket.once('data', () => {
        socket.write('HTTP/1.1 403 No\r\n\r\n')
        setTimeout(() => socket.resetAndDestroy(), 20)
      }),
    connect,
    'via-refused',
    /^connect 127\.0\.0\.1:\d+: 403 No$/,
  ],
  [
    'talks of something else',
    (socket) => socket.write('220 \x1b[2Jftp\r\n'),
    connect,
    'via-failed',
    /no answer of HTTP: "220 \\x1b\[2Jftp\\x0d\\x0a"$/,
  ],
  ['never answers', () => {}, connect, 'via-failed', /no answer in 300 ms$/],
  ['closes', (socket) => socket.end(), socks5, 'via-failed', /closed the connection$/],
  ['resets', (socket) => socket.once('data', () => socket.resetAndDestroy()), socks5, 'via-failed', /ECONNRESET$/],
  [
    'never ends its answer',
    (socket) => socket.write(`HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(5_000)}`),
    connect,
    'via-failed',
    /its head has no end/,
  ],
]
for (const [what, serve, viaOf, reason, error] of FAILURES) {
  test(`a proxy that ${what}: the client is reset, and the record says why`, async () => {
    await using via = await startVia((socket) => void serve(socket.resume()), viaOf)
    const client = connectTo(via.address)
    client.write('hello')
    await whenClosed(client)
    assert.equal(client.failure?.code, 'ECONNRESET')
    const record = await via.nextRecord()
    assert.equal(record.reason, reason, record.error)
    assert.match(record.error ?? '', error)
    assert.deepEqual(record.upstream, via.server.address)
    await until(() => via.server.connections.size === 0, 'the end of the connection to the proxy')
  })
}

test('a client that is gone while the proxy thinks leaves nothing behind', async () => {
  await using via = await startVia((socket) => void socket.resume(), connect)
  const client = connectTo(via.address)
  await until(() => via.server.connections.size === 1, 'a connection to the proxy')
  client.resetAndDestroy()
  assert.equal((await via.nextRecord()).reason, 'client-gone')
  await until(() => via.server.connections.size === 0, 'the end of the connection to the proxy')
})

const ANY: PolicyMatch = {
  ...{ listeners: [], sources: [], destinations: [], ports: [], protocols: [], interfaces: [], macs: [] },
  ...{ detected: [], hosts: [], lists: [], times: [] },
}
for (const [said, passes] of [
  ['\x00neither of these', true],
  ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', false],
] as const) {
  const what = passes ? 'goes on where the rules stay with it' : 'ends where they would have sent it another way'
  test(`what a silent client says at last, behind a header of the PROXY protocol, ${what}`, async () => {
    const came: Buffer[] = []
    const serve = (socket: Socket): void =>
      void socket.on('data', (chunk) => came.push(chunk)).on('end', () => socket.end('bye'))
    const decision = { kind: 'forward', to: undefined, source: undefined } as const
    const policy = {
      rules: [{ name: 'direct', match: { ...ANY, detected: ['http1'] }, decision }],
      peek: { silenceMs: 50, helloMs: 1_000, serverFirst: [] },
    } satisfies Partial<PolicyConfig>
    const header = (): Via => ({ kind: 'proxy-protocol', version: 1 })
    await using via = await startVia(serve, header, { policy })
    const client = connectTo(via.address)
    await until(() => came.length > 0, 'a header')
    client.end(said)
    const answer = await readAll(client).then(String, () => 'reset')
    const { reason, rule } = await via.nextRecord()
    assert.deepEqual([answer, reason, rule], passes ? ['bye', 'closed', undefined] : ['reset', 'policy', 'direct'])
    assert.equal(Buffer.concat(came).toString().endsWith(said), passes)
  })
}
