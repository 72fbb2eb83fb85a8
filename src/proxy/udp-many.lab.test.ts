import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { sleep } from '../lab/traffic.fixture.ts'
import { formatEndpoint } from '../net/address.ts'
import { bindUdp, type UdpSocket } from './bind-udp.ts'

await enterNamespaces()

const ATTEMPTS = 10
const ANSWERS_MS = 300
const RUN = ['run', '--intercept', 'tproxy', '--protocol', 'udp', '--from', X_TO_Y]

/** Every address of 198.18.0.0/15 (RFC 2544, for benchmarks) is one of Z's, and answers from the address asked. */
async function manyServers({ x, z }: Topology, port: number): Promise<UdpSocket> {
  await z.run('ip', ['route', 'add', 'local', '198.18.0.0/15', 'dev', 'lo'])
  await x.run('ip', ['route', 'add', '198.18.0.0/15', 'via', '10.0.4.2'])
  const socket = await z.inside(() => bindUdp({ port }))
  void (async () => {
    for await (const datagram of socket) socket.reply(datagram, datagram.bytes)
  })()
  return socket
}

function serverAddress(i: number): string {
  return `198.18.${i >> 8}.${i & 0xff}`
}

/** Asks so many servers from one socket, each until it has answered: what a full buffer has cost is asked again, as a client would. */
async function askAll(client: DatagramPeer, count: number): Promise<void> {
  const left = new Set<number>(Array.from({ length: count }, (_, i) => i))
  for (let attempt = 0; attempt < ATTEMPTS && left.size > 0; attempt++) {
    let sent = 0
    for (const i of left) {
      client.send(`${i}`, { address: serverAddress(i), port: 5_300 })
      if (++sent % 20 === 0) await sleep(8) // 2,500 a second: what is measured is how many, not how fast
    }
    await sleep(ANSWERS_MS)
    for (const { bytes, from } of client.heard.splice(0)) {
      assert.equal(formatEndpoint(from), `${serverAddress(Number(`${bytes}`))}:5300`)
      left.delete(Number(`${bytes}`))
    }
  }
  assert.equal(left.size, 0, `${left.size} of ${count} servers were never heard`)
}

test('two clients with the same source port have a session each, and their own answers', async () => {
  const topology = await raiseTopology()
  try {
    const { x, y, z } = topology
    await y.run('ip', ['address', 'add', '10.0.3.7/24', 'dev', 'y-x'])
    await using echo = await DatagramPeer.echo(z, { address: '10.0.4.2', port: 5_300 })
    for (const source of ['proxy', 'client', 'client-port']) {
      const limpid = await LimpidProcess.start(x, [...RUN, '--ports', '5300', '--source', source])
      await using one = await DatagramPeer.open(y, { address: '10.0.3.1', port: 7_000 })
      await using other = await DatagramPeer.open(y, { address: '10.0.3.7', port: 7_000 })
      for (let i = 0; i < 20; i++) {
        one.send(`one ${i}`, echo.address)
        other.send(`other ${i}`, echo.address)
      }
      assert.ok((await one.hears(20)) && (await other.hears(20)), source)
      assert.deepEqual(
        one.heard.map(({ bytes }) => `${bytes}`),
        Array.from({ length: 20 }, (_, i) => `one ${i}`),
      )
      assert.deepEqual(
        other.heard.map(({ bytes }) => `${bytes}`),
        Array.from({ length: 20 }, (_, i) => `other ${i}`),
      )
      assert.equal((await limpid.stats()).sessionsOpen, 2)
      assert.equal(await limpid.stop(), 0, limpid.stderr)
    }
  } finally {
    await topology.close()
  }
})

test('one client asks 1000 servers from one port, with its port: each answer comes from the server that was asked; all descriptors are closed when the sessions are idle', async () => {
  const topology = await raiseTopology()
  try {
    await using _servers = await manyServers(topology, 5_300)
    const config = configFile(topology, { source: 'client-port', timeouts: { session: '4s' } })
    const limpid = await LimpidProcess.start(topology.x, ['run', '-c', config])
    const before = limpid.descriptors()
    await using client = await DatagramPeer.open(topology.y, { address: '10.0.3.1', port: 7_000 })
    await askAll(client, 1_000)
    const stats = await limpid.stats()
    assert.deepEqual({ open: stats.sessionsOpen, fallbacks: stats.sessionPortFallbacks }, { open: 1_000, fallbacks: 0 })
    assert.ok(limpid.descriptors() > before + 1_000)
    for (let i = 0; i < 150 && (await limpid.stats()).sessionsOpen > 0; i++) await sleep(100)
    // reply sockets stay for half a minute; of the sessions nothing is left
    const { sessionsOpen, replySockets } = await limpid.stats()
    assert.deepEqual([sessionsOpen, limpid.descriptors() - before <= replySockets], [0, true])
    assert.equal(await limpid.stop(), 0, limpid.stderr)
    assert.equal(limpid.records.length, 1_000)
  } finally {
    await topology.close()
  }
})

test('10,000 sessions at once are all answered', async () => {
  const topology = await raiseTopology()
  try {
    await using _servers = await manyServers(topology, 5_300)
    const limpid = await LimpidProcess.start(
      topology.x,
      ['run', '-c', configFile(topology, {}, { sessions: 12_000, sessionsPerClient: 12_000 })],
      { wrapper: ['prlimit', '--nofile=20000'] },
    )
    const memory = limpid.anonymousBytes()
    await using client = await DatagramPeer.open(topology.y, { address: '10.0.3.1', port: 7_000 })
    await askAll(client, 10_000)
    assert.equal((await limpid.stats()).sessionsOpen, 10_000)
    const grown = limpid.anonymousBytes() - memory
    assert.ok(grown < 10_000 * 8_192, `${grown} bytes more for 10,000 sessions`)
    const lost = Object.keys((await limpid.stats()).datagramsDropped)
    assert.deepEqual(
      lost.filter((reason) => reason !== 'listener-buffer'),
      [],
    )
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  } finally {
    await topology.close()
  }
})

test('T15: a server of this host on all addresses and the same port keeps its datagrams, and sessions have their answers', async () => {
  const topology = await raiseTopology()
  try {
    const { x, y, z } = topology
    await using echo = await DatagramPeer.echo(z, { address: '10.0.4.2', port: 5_300 })
    const own = x.spawn(process.execPath, ['-e', OWN_SERVER], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(own.stdout!, 'data')
    const limpid = await LimpidProcess.start(x, [...RUN, '--ports', '5300', '--source', 'client'])
    await using client = await DatagramPeer.open(y, { address: '10.0.3.1', port: 0 })
    for (let i = 0; i < 50; i++) {
      client.send(`through ${i}`, echo.address)
      assert.deepEqual((await client.next())?.from, echo.address)
      client.send(`local ${i}`, { address: '10.0.3.101', port: 5_300 })
      const answer = await client.next()
      assert.equal(`${answer?.bytes}`, `own local ${i}`)
      assert.equal(answer?.from.address, '10.0.3.101')
    }
    const stats = await limpid.stats()
    assert.equal(stats.rawDatagrams, 50, 'answers went by a raw socket')
    assert.match(
      limpid.stderr,
      new RegExp(`10\\.0\\.4\\.2:5300 go by a raw socket: EADDRINUSE: \\S+ \\(pid ${own.pid}\\) has the port 5300`),
    )
    assert.deepEqual(stats.datagramsDropped, {})
    assert.equal(await limpid.stop(), 0)
    own.kill()
  } finally {
    await topology.close()
  }
})

// a server that was there first, and does not share its port
const OWN_SERVER = `
const { openUdp, bindSocket } = await import(${JSON.stringify(new URL('../sys/socket.js', import.meta.url).href)})
const fd = openUdp(4)
bindSocket(fd, { address: '0.0.0.0', port: 5300 })
const { ffi } = await import(${JSON.stringify(new URL('../sys/ffi.js', import.meta.url).href)})
const { DatagramArena } = await import(${JSON.stringify(new URL('../sys/datagram-arena.js', import.meta.url).href)})
const arena = new DatagramArena()
process.stdout.write('ready')
setInterval(() => {
  const count = arena.receive(fd, 64)
  for (let slot = 0; slot < count; slot++) {
    const bytes = Buffer.concat([Buffer.from('own '), arena.bytesOf(slot)])
    const name = new Uint8Array(arena.senders.buffer, slot * 32, 16)
    ffi.sendto(fd, bytes, bytes.length, 0, name, 16)
  }
  arena.used = 0
}, 1)
`

function configFile({ x }: Topology, changes: object, limits: Record<string, number> = {}): string {
  const file = `/run/limpid-many-${x.namespaceFd}.yaml` // /run is the lab's own
  const listener = { protocols: 'udp', ports: 5_300, source: 'client', interfaces: X_TO_Y, ...changes }
  writeFileSync(file, JSON.stringify({ listeners: [listener], limits }))
  return file
}
