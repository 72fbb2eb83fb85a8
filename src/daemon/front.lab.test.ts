import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { proxyV1, proxyV2 } from '../inspect/proxy-protocol-write.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

// Y is the proxy in front, and has a neighbour who is none; the client of whom it tells is nobody's address
const { y, xy, z } = ADDRESSES[4]
const NEIGHBOUR = '10.0.3.7'
const CLIENT = { address: '10.0.3.77', port: 4711 }
const PORT = { told: 8001, fixed: 8002 } as const
const web: Endpoint = { address: z, port: 80 }
const folder = mkdtempSync(join(tmpdir(), 'limpid-front-'))
let lab: Topology
let limpid: LimpidProcess
let server: LabServer

const CONFIG = `
listeners:
  - { name: told, intercept: none, listen: ${PORT.told}, source: client, sources: 10.0.3.0/24, acceptProxyProtocol: { from: ${y} } }
  - { name: fixed, intercept: none, listen: ${PORT.fixed}, to: "${z}:80", acceptProxyProtocol: { from: [${y}, "fd00:3::1"] } }
  - { name: taken, ports: 80, source: client, acceptProxyProtocol: { from: ${y} } }
policy:
  rules:
    - { name: banned, sources: 10.0.3.66, then: reject }
    - { name: blocked, hosts: blocked.example, then: reject }
    - { name: no-telnet, ports: 23, then: reject }
`

before(async () => {
  lab = await raiseTopology()
  await lab.y.run('ip', ['-batch', '-'], {
    input: `address add ${NEIGHBOUR}/24 dev y-x\naddress add ${CLIENT.address}/24 dev y-x`,
  })
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, CONFIG)
  server = await serve(lab.z, web, (socket) => {
    socket.on('data', (bytes: Buffer) => socket.write(bytes))
    socket.on('end', () => socket.end())
  })
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

beforeEach(async () => {
  await sleep(20)
  limpid.skipRecords()
  server.peers.splice(0)
})

function header(version: 1 | 2, client = CLIENT, originalDst = web): Buffer {
  return Buffer.from((version === 1 ? proxyV1 : proxyV2)({ client, originalDst }))
}

function dial(port: number, localAddress: string = y): Socket {
  const socket = lab.y.connect({ address: port === 80 ? z : xy, port }, { from: { address: localAddress, port: 0 } })
  return socket.on('error', () => {}).setNoDelay(true)
}

/** What comes back of what is sent (`\x01`: what no probe takes for the beginning of HTTP): an echo, or how the connection ended. */
async function exchange(port: number, ...steps: readonly (Buffer | string | number)[]): Promise<string> {
  const socket = dial(port)
  let text = ''
  socket.on('data', (bytes) => {
    text += bytes
    if (text.endsWith('.')) socket.end()
  })
  const received = receiveAll(socket)
  for (const step of steps) {
    if (typeof step === 'number') await sleep(step)
    else socket.write(step)
  }
  const { failure } = await received
  return failure ?? text
}

for (const version of [1, 2] as const) {
  test(`v${version}: client and destination are those of the header, for the record and towards the server`, async () => {
    assert.equal(await exchange(PORT.told, Buffer.concat([header(version), Buffer.from('\x01ello.')])), '\x01ello.')
    const { client, front, originalDst, upstream, sourceAddr, bytesClientToUpstream } = await limpid.nextRecord()
    assert.deepEqual([client, front?.address, originalDst, upstream], [CLIENT, y, web, web])
    assert.deepEqual([sourceAddr?.address, server.peers[0]?.address], [CLIENT.address, CLIENT.address])
    assert.equal(bytesClientToUpstream, 6)
  })

  test(`v${version}: a header in single bytes, and the client’s first bytes long after it`, async () => {
    const bytes = [...header(version)].flatMap((byte) => [Buffer.of(byte), 2])
    assert.equal(await exchange(PORT.told, ...bytes, 400, '\x01el', 20, 'lo.'), '\x01ello.')
  })
}

test('rules see the client and the destination of the header, and what it says behind it', async () => {
  const get = 'GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n'
  assert.equal(await exchange(PORT.told, header(2), get), 'ECONNRESET')
  assert.equal((await limpid.nextRecord()).rule, 'blocked')
  assert.equal(await exchange(PORT.told, header(1, { address: '10.0.3.66', port: 1 })), 'ECONNRESET')
  assert.equal((await limpid.nextRecord()).rule, 'banned')
  assert.equal(await exchange(PORT.told, header(2, CLIENT, { address: z, port: 23 })), 'ECONNRESET')
  assert.equal((await limpid.nextRecord()).rule, 'no-telnet')
})

test('an intercepted connection of the proxy in front is one with a header, too', async () => {
  const other = { address: z, port: 81 }
  await using more = await serve(lab.z, other, (socket) => void socket.end('from 81.'))
  assert.equal(await exchange(80, header(2, CLIENT, other)), 'from 81.')
  assert.equal(more.peers[0]?.address, CLIENT.address)
  assert.equal((await limpid.nextRecord()).listener, 'taken')
})

test('with `to` the header says who comes, not where he goes; LOCAL and UNKNOWN keep the connection’s own addresses', async () => {
  assert.equal(await exchange(PORT.fixed, header(1, CLIENT, { address: '192.0.2.9', port: 9 }), '\x01a.'), '\x01a.')
  const told = await limpid.nextRecord()
  assert.deepEqual([told.client, told.originalDst, told.upstream], [CLIENT, { address: '192.0.2.9', port: 9 }, web])
  const local = header(2)
  local[12] = 0x20
  for (const own of [local, Buffer.from('PROXY UNKNOWN\r\n')]) {
    assert.equal(await exchange(PORT.fixed, own, '\x01b.'), '\x01b.')
    const { client, front, originalDst } = await limpid.nextRecord()
    assert.deepEqual([client.address, front, originalDst], [y, undefined, { address: xy, port: PORT.fixed }])
  }
})

const wrong = header(2)
wrong[13] = 0x12 // a datagram
const REFUSED: readonly (readonly [string, readonly (Buffer | string | number)[], string])[] = [
  ['no header', ['GET / HTTP/1.1\r\n'], 'proxy-header'],
  ['a line that is none', ['PROXY TCP4 10.0.3.77 10.0.4.2 4711\r\n'], 'proxy-header'],
  ['a line without end', [`PROXY TCP4 ${'1'.repeat(120)}`], 'proxy-header'],
  ['a datagram’s header', [wrong], 'proxy-header'],
  ['port 0', [header(2, CLIENT, { address: z, port: 0 })], 'proxy-header'],
  ['a destination that is ours', [header(2, CLIENT, { address: xy, port: 22 })], 'loop'],
  ['our listener', [header(1, CLIENT, { address: xy, port: PORT.fixed })], 'loop'],
  ['loopback', [header(2, CLIENT, { address: '127.0.0.1', port: 80 })], 'loop'],
  ['a client that is the server', [header(2, { address: z, port: 1 })], 'source'],
  ['a client that is loopback', [header(2, { address: '127.0.0.1', port: 1 })], 'source'],
  ['LOCAL, where nobody says where to', ['PROXY UNKNOWN\r\n'], 'loop'],
]

for (const [name, steps, reason] of REFUSED) {
  test(`${name}: ${reason}, and nothing is dialled`, async () => {
    assert.equal(await exchange(PORT.told, ...steps), 'ECONNRESET')
    assert.equal((await limpid.nextRecord()).reason, reason)
    assert.equal(server.peers.length, 0)
  })
}

test('a header that does not come in 5 s, or ends with a FIN, is one that fails', async () => {
  const startedAt = performance.now()
  const silent = exchange(PORT.told, 'PROXY TC')
  const closed = dial(PORT.told)
  closed.end('PROXY TCP4 ')
  assert.equal((await receiveAll(closed)).failure, 'ECONNRESET')
  assert.ok(performance.now() - startedAt < 4_000)
  assert.equal(await silent, 'ECONNRESET')
  assert.ok(performance.now() - startedAt >= 4_900)
  for (let i = 0; i < 2; i++) assert.equal((await limpid.nextRecord()).reason, 'proxy-header')
  const { endedBy, flowsOpen } = await limpid.stats()
  assert.deepEqual([endedBy['proxy-header']! >= 7, flowsOpen], [true, 0])
})

test('who is not among them is a client like others, and its header is for the server', async () => {
  const line = header(1)
  const socket = dial(PORT.fixed, NEIGHBOUR)
  let text = ''
  socket.on('data', (bytes) => {
    text += bytes
  })
  socket.write(line)
  await until(() => text.length === line.length, 'the echo')
  socket.end()
  const { client, front } = await limpid.nextRecord()
  assert.deepEqual([client.address, front], [NEIGHBOUR, undefined])
})

const haproxy = { skip: isInstalled('haproxy') ? false : 'haproxy is not installed' }

test('HAProxy in front, by v1 and v2: its client is the flow’s', haproxy, async () => {
  const file = join(folder, 'haproxy.cfg')
  const part = (port: number, word: string) =>
    `listen v${port}\n  bind ${y}:${port}\n  server limpid ${xy}:${PORT.fixed} ${word} source ${y}\n`
  const timeouts = ['connect', 'client', 'server'].map((name) => `  timeout ${name} 5s\n`).join('')
  writeFileSync(file, `defaults\n  mode tcp\n${timeouts}${part(7001, 'send-proxy')}${part(7002, 'send-proxy-v2')}`)
  const front = lab.y.spawn('haproxy', ['-db', '-f', file], { stdio: 'ignore' })
  try {
    await until(
      () => lab.y.inside(() => /:1B5A \S+ 0A /.test(readFileSync('/proc/thread-self/net/tcp', 'latin1'))),
      '7002',
    )
    for (const port of [7001, 7002]) {
      const socket = lab.y.connect({ address: y, port }, { from: { address: CLIENT.address, port: 0 } })
      socket.on('error', () => {})
      socket.end('\x01ello')
      assert.equal((await receiveAll(socket)).bytes, 5)
      const { client, front: by, originalDst } = await limpid.nextRecord()
      assert.deepEqual([client.address, by?.address, originalDst], [CLIENT.address, y, { address: y, port }])
    }
  } finally {
    front.kill()
    await once(front, 'close')
  }
})
