import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { BurstPeer, type Incoming } from '../lab/burst.fixture.ts'
import { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { PATIENCE_MS, sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import type { ProxyStats } from '../proxy/stats.ts'
import { ECONNREFUSED, EMSGSIZE } from '../sys/errno.ts'

await enterNamespaces()

// V — Y — X — Z — W: beyond Y and Z, which are routers here, the links carry 1280 bytes
const V = { 4: '10.0.2.2', 6: 'fd00:2::2' } as const
const W = { 4: '10.0.5.2', 6: 'fd00:5::2' } as const
const NARROW = 1_280
const BIG = Buffer.alloc(1_400, 'x')
const FAMILIES: readonly Family[] = [4, 6]
const LISTENERS = [
  { source: 'proxy', port: 5_001 },
  { source: 'client', port: 5_002 },
  { source: 'client-port', port: 5_003 },
] as const
const folder = mkdtempSync(join(tmpdir(), 'limpid-path-'))
let lab: Topology
let v: Host
let w: Host
let limpid: LimpidProcess
let earlier: ProxyStats

before(async () => {
  lab = await raiseTopology()
  const { x, y, z } = lab
  v = await behind(y, 'v', '10.0.2.', 'fd00:2::')
  w = await behind(z, 'w', '10.0.5.', 'fd00:5::')
  const routes = [
    `route add 10.0.2.0/24 via ${ADDRESSES[4].y}`,
    `route add 10.0.5.0/24 via ${ADDRESSES[4].z}`,
    `-6 route add fd00:2::/64 via ${ADDRESSES[6].y}`,
    `-6 route add fd00:5::/64 via ${ADDRESSES[6].z}`,
  ]
  for (const route of routes) await x.run('ip', route.split(' '))
  const listeners = LISTENERS.map(({ source, port }) => {
    return { intercept: 'tproxy', protocols: 'udp', source, ports: [port], timeouts: { session: '1s' } }
  })
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, JSON.stringify({ listeners: listeners.map((one, i) => ({ name: `l${i}`, ...one })) }))
  limpid = await LimpidProcess.start(x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await Promise.all([v.close(), w.close()])
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** A host with `.2` behind a router, on a link for small packets. */
async function behind(router: Host, name: string, net4: string, net6: string): Promise<Host> {
  const host = await Host.create(name.toUpperCase())
  host.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
  router.setSysctls({ 'net.ipv4.ip_forward': '1', 'net.ipv6.conf.all.forwarding': '1' })
  const lines = (own: string, last: number) => [
    `link set ${own} mtu ${NARROW}`,
    `address add ${net4}${last}/24 dev ${own}`,
    `address add ${net6}${last}/64 dev ${own} nodad`,
    `link set ${own} up`,
  ]
  const link = `link add to-${name} type veth peer name ${name} netns ${host.path}`
  await router.run('ip', ['-batch', '-'], { input: [link, ...lines(`to-${name}`, 1)].join('\n') })
  const ways = [`route add default via ${net4}1`, `-6 route add default via ${net6}1`]
  await host.run('ip', ['-batch', '-'], { input: lines(name, 2).join('\n') })
  for (const way of ways) await host.run('ip', way.split(' '))
  return host
}

async function since() {
  const now = await limpid.stats()
  return {
    fromUpstream: now.errorsFromUpstream - earlier.errorsFromUpstream,
    toClient: now.errorsToClient - earlier.errorsToClient,
    fromClient: now.errorsFromClient - earlier.errorsFromClient,
    toUpstream: now.errorsToUpstream - earlier.errorsToUpstream,
  }
}

async function forgetPaths(host: Host, family: Family): Promise<void> {
  await host.run('ip', [`-${family}`, 'route', 'flush', 'cache'])
}

/** What a host knows of the way to somebody. A new socket: one that is connected asks its route again only when it sends. */
function knownMtu(host: Host, peer: Endpoint): number {
  using socket = new BurstPeer(host, { address: familyOf(peer.address) === 4 ? '0.0.0.0' : '::', port: 0 }, { peer })
  return socket.pathMtu
}

async function next(peer: BurstPeer, withinMs = PATIENCE_MS): Promise<Incoming | undefined> {
  for (const deadlineAt = performance.now() + withinMs; performance.now() < deadlineAt; await sleep(5)) {
    const [first] = peer.receive()
    if (first !== undefined) return first
  }
  return undefined
}

async function nextError(peer: BurstPeer): Promise<number> {
  for (const deadlineAt = performance.now() + PATIENCE_MS; performance.now() < deadlineAt; await sleep(2)) {
    const errno = peer.takeError()
    if (errno !== 0) return errno
  }
  return 0
}

for (const { source, port } of LISTENERS) {
  for (const family of FAMILIES) {
    describe(`source ${source}, IPv${family}`, () => {
      const server: Endpoint = { address: W[family], port }
      const anyPort = { address: ADDRESSES[family].y, port: 0 }

      // what a test has learnt of a path does not serve the next
      beforeEach(async () => {
        await Promise.all([lab.x, lab.y, lab.z].map((host) => forgetPaths(host, family)))
        earlier = await limpid.stats()
      })

      test('T17: a client whose datagrams must not be fragmented learns the path MTU behind Limpid, and so does the next', async () => {
        using far = new BurstPeer(w, server)
        for (const which of ['first', 'second']) {
          using client = new BurstPeer(lab.y, anyPort, { peer: server, fragments: 'never' })
          client.send([{ bytes: Buffer.from(which) }])
          assert.equal((await next(far))?.bytes.toString(), which)
          client.send([{ bytes: BIG }])
          assert.equal(await nextError(client), EMSGSIZE, which)
          assert.equal(client.pathMtu, NARROW, which)
          await forgetPaths(lab.y, family) // as another host, which has not been told yet
          far.receive()
        }
        const { fromUpstream, toClient } = await since()
        assert.deepEqual({ fromUpstream, toClient }, { fromUpstream: 1, toClient: 2 })
      })

      test('what may be fragmented gets through from the second datagram on, and so do answers', async () => {
        using far = new BurstPeer(w, server)
        using client = new BurstPeer(lab.y, anyPort, { fragments: 'always' })
        client.send([{ bytes: BIG, to: server }]) // lost: Limpid's may not be fragmented, so that it learns the path MTU
        await until(() => knownMtu(lab.x, server) === NARROW, 'the path MTU at X')
        client.send([{ bytes: BIG, to: server }])
        const arrived = await next(far)
        assert.ok(arrived?.bytes.equals(BIG))
        far.send([{ bytes: BIG, to: arrived!.from }])
        assert.ok((await next(client))?.bytes.equals(BIG))
      })

      test("T17: a server whose answers are too big for the client's side learns the path MTU there, from the second on they arrive", async () => {
        const near: Endpoint = { address: ADDRESSES[family].z, port }
        using client = new BurstPeer(v, { address: V[family], port: 0 })
        using asked = new BurstPeer(lab.z, near)
        client.send([{ bytes: Buffer.from('?'), to: near }])
        const from = (await next(asked))!.from
        assert.equal(knownMtu(lab.z, from), 1_500)
        asked.send([{ bytes: BIG, to: from }])
        await until(() => knownMtu(lab.z, from) === NARROW, 'the path MTU at Z')
        asked.send([{ bytes: BIG, to: from }])
        assert.ok((await next(client))?.bytes.equals(BIG))
        const { fromClient, toUpstream } = await since()
        assert.deepEqual({ fromClient, toUpstream }, { fromClient: 1, toUpstream: 1 })
      })

      test('T17: nobody at the port is told as that', async () => {
        using client = new BurstPeer(lab.y, anyPort, { peer: server })
        client.send([{ bytes: Buffer.from('?') }])
        assert.equal(await nextError(client), ECONNREFUSED)
        const { fromUpstream, toClient } = await since()
        assert.deepEqual({ fromUpstream, toClient }, { fromUpstream: 1, toClient: 1 })
      })

      test('T17: DSCP and ECN of each datagram arrive as they were, both ways', async () => {
        using far = new BurstPeer(w, server)
        using client = new BurstPeer(lab.y, anyPort, { peer: server })
        const marks = [0, 0xb8, 0xb8, 0x02, 0x28, 0x03, 0x01, 0, 0xff].map((tos) => ({
          bytes: Buffer.from(`${tos}`),
          tos,
        }))
        client.send(marks)
        const up: Incoming[] = []
        await until(() => up.push(...far.receive()) >= marks.length, 'all')
        assert.deepEqual(
          up.map(({ bytes, tos }) => [`${bytes}`, tos]),
          marks.map(({ bytes, tos }) => [`${bytes}`, tos]),
        )
        far.send(marks.map((one) => ({ ...one, to: up[0]!.from })))
        const down: Incoming[] = []
        await until(() => down.push(...client.receive()) >= marks.length, 'all answers')
        assert.deepEqual(
          down.map(({ bytes, tos }) => [`${bytes}`, tos]),
          marks.map(({ bytes, tos }) => [`${bytes}`, tos]),
        )
        assert.equal(formatEndpoint(down[0]!.from), formatEndpoint(server))
      })
    })
  }
}
