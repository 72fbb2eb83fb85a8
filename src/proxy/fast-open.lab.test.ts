import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Server, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { receiveAll, sleep } from '../lab/traffic.fixture.ts'
import { setFastOpen } from '../sys/options.ts'
import { bindSocket, listenSocket, openTcp } from '../sys/socket.ts'

await enterNamespaces()

const { xy, z } = ADDRESSES[4]
const relayed = { address: xy, port: 8080 }
let lab: Topology
let limpid: LimpidProcess
let server: Server
let serve: (socket: Socket) => void

before(async () => {
  lab = await raiseTopology()
  lab.z.setSysctls({ 'net.ipv4.tcp_fastopen': '3' })
  const fd = lab.z.inside(() => openTcp(4))
  bindSocket(fd, { address: z, port: 80 })
  setFastOpen(fd, 16)
  listenSocket(fd, 64)
  server = new Server({ allowHalfOpen: true }, (socket) => serve(socket.on('error', () => {}))).listen({ fd })
  limpid = await LimpidProcess.start(lab.x, ['relay', '-f', '-l', '8080', z, '80'])
})

after(async () => {
  server.close()
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await lab.close()
})

/** Connections that X opened with data in the SYN (TCPFastOpenActive in /proc/net/netstat). */
function fastOpened(): number {
  const [names = '', values = ''] = lab.x
    .inside(() => readFileSync('/proc/thread-self/net/netstat', 'latin1'))
    .split('\n')
    .filter((line) => line.startsWith('TcpExt:'))
  return Number(values.split(' ')[names.split(' ').indexOf('TCPFastOpenActive')])
}

test('the first bytes of a client go out with the SYN once the cookie is known, and all bytes arrive once', async () => {
  serve = (socket) => socket.pipe(socket)
  for (let round = 0; round < 5; round++) {
    const client = lab.y.connect(relayed)
    client.end('first bytes of the client')
    assert.equal((await receiveAll(client)).bytes, 25)
    assert.equal((await limpid.nextRecord()).bytesClientToUpstream, 25)
  }
  assert.ok(fastOpened() >= 1, `${fastOpened()} of 5`)
})

test('a server that speaks first is not kept waiting for the client', async () => {
  serve = (socket) => socket.end('220 ready')
  const client = lab.y.connect(relayed)
  assert.equal((await receiveAll(client)).bytes, 9)
  client.end()
  assert.equal((await limpid.nextRecord()).reason, 'closed')
})

test('a client that sends and half-closes before the server has answered gets its answer', async () => {
  serve = (socket) => {
    socket.resume().on('end', () => socket.end('answer'))
  }
  await lab.z.run('nft', ['-f', '-'], {
    input: 'table ip slow { chain in { type filter hook prerouting priority raw; tcp flags syn drop; }; }',
  })
  const client = lab.y.connect(relayed)
  client.end('request')
  await sleep(300)
  await lab.z.run('nft', ['delete', 'table', 'ip', 'slow'])
  assert.equal((await receiveAll(client)).bytes, 6)
  assert.equal((await limpid.nextRecord()).reason, 'closed')
})
