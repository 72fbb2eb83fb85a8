import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { until } from '../lab/traffic.fixture.ts'
import type { Endpoint, Family } from '../net/address.ts'
import { enterNetNamespace } from '../sys/namespace.ts'
import { type BindUdpOptions, bindUdp, type UdpDatagram, type UdpSocket } from './bind-udp.ts'
import { routeMarked } from './gateway.fixture.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const ANY = { 4: '0.0.0.0', 6: '::' } as const
const LOOPBACK = { 4: '127.0.0.1', 6: '::1' } as const
/** Of documentation (RFC 5737, RFC 3849): nobody's here. */
const FOREIGN = { 4: '192.0.2.7', 6: '2001:db8::7' } as const
const OTHER = { 4: '192.0.2.8', 6: '2001:db8::8' } as const
const MARK = '0x10000000'

/** As a person would write them: these tests are about the socket alone. */
const RULES = `table inet hand {
  chain pre {
    type filter hook prerouting priority mangle;
    iifname != "${X_TO_Y}" return
    meta nfproto ipv4 udp dport 5300 tproxy ip to 127.0.0.1:50080 meta mark set ${MARK} accept
    meta nfproto ipv6 udp dport 5300 tproxy ip6 to [::1]:50080 meta mark set ${MARK} accept
    udp dport 5301 meta mark set ${MARK}
  }
  chain nat {
    type nat hook prerouting priority dstnat;
    iifname "${X_TO_Y}" udp dport 5302 redirect to :50082
  }
}
`

let lab: Topology

/** This process stays on X: a socket opens others for its answers where the process happens to be. */
before(async () => {
  lab = await raiseTopology()
  enterNetNamespace(lab.x.namespaceFd)
  await routeMarked(lab.x)
  await lab.x.run('nft', ['-f', '-'], { input: RULES })
  for (const family of FAMILIES) {
    const route = ['route', 'add', 'local', family === 4 ? '198.18.0.0/15' : '2001:db8:18::/48', 'dev', 'lo']
    await lab.z.run('ip', [`-${family}`, ...route])
  }
})

after(() => lab.close())

const descriptors = (): number => readdirSync('/proc/self/fd').length

/** A socket that gives each datagram to `take`. */
async function taking(options: BindUdpOptions, take: (datagram: UdpDatagram, socket: UdpSocket) => void) {
  const socket = await bindUdp(options)
  void (async () => {
    for await (const datagram of socket) take(datagram, socket)
  })()
  return socket
}

for (const family of FAMILIES) {
  const { y, xy, xz, z } = ADDRESSES[family]

  test(`a peer sees the address and port that the socket is bound to, though they are nobody's here, IPv${family} (R18)`, async () => {
    await using server = await DatagramPeer.open(lab.z, { address: z, port: 53 })
    await using socket = await bindUdp({ address: FOREIGN[family], port: 5_300, transparent: true })
    assert.deepEqual(socket.address, { address: FOREIGN[family], port: 5_300 })
    assert.equal(socket.send('hello', server.address), true)
    const heard = await server.next()
    assert.deepEqual([`${heard?.bytes}`, heard?.from], ['hello', socket.address])
  })

  test(`\`from\` sends one datagram from another address, with the socket's own port, IPv${family}`, async () => {
    await using server = await DatagramPeer.open(lab.z, { address: z, port: 53 })
    await using socket = await bindUdp({ address: ANY[family], transparent: true })
    const { port } = socket.address
    socket.send('one', server.address, { from: FOREIGN[family] })
    socket.send('two', server.address)
    socket.send('', server.address, { from: OTHER[family] })
    assert.ok(await server.hears(3))
    assert.deepEqual(
      server.heard.map(({ bytes, from }) => [`${bytes}`, from]),
      [
        ['one', { address: FOREIGN[family], port }],
        ['two', { address: xz, port }],
        ['', { address: OTHER[family], port }],
      ],
    )
  })

  const ways: Record<string, { readonly asked: Endpoint; readonly bind: BindUdpOptions }> = {
    tproxy: {
      asked: { address: z, port: 5_300 },
      bind: { address: LOOPBACK[family], port: 50_080, transparent: true },
    },
    mark: { asked: { address: z, port: 5_301 }, bind: { address: ANY[family], port: 5_301, transparent: true } },
    'no rule at all': { asked: { address: xy, port: 5_303 }, bind: { address: ANY[family], port: 5_303 } },
  }
  for (const [way, { asked, bind }] of Object.entries(ways)) {
    test(`reply() answers from the address and port that the client asked, by ${way}, IPv${family} (R4)`, async () => {
      const taken: UdpDatagram[] = []
      await using _ = await taking(bind, (datagram, socket) => {
        taken.push(datagram)
        socket.reply(datagram, datagram.bytes)
      })
      for (const connected of [true, false]) {
        await using client = await DatagramPeer.open(lab.y, { address: y, port: 0 }, connected ? asked : undefined)
        for (const text of ['first', 'second', '', 'x'.repeat(3_500)]) {
          client.send(text, connected ? undefined : asked)
          const answer = await client.next()
          assert.deepEqual([`${answer?.bytes}`, answer?.from], [text, asked])
          assert.deepEqual([taken.at(-1)?.originalDst, taken.at(-1)?.clientAddr], [asked, client.address])
        }
      }
    })
  }

  test(`after REDIRECT conntrack tells where a client sent its datagram, and the answer comes from there, IPv${family} (R2)`, async () => {
    const asked = { address: z, port: 5_302 }
    const found: (Endpoint | undefined)[] = []
    await using _ = await taking({ address: ANY[family], port: 50_082 }, (datagram, socket) => {
      assert.deepEqual(datagram.originalDst, { address: xy, port: 50_082 })
      found.push(socket.natOriginalDst(datagram))
      socket.reply(datagram, 'answer')
    })
    await using client = await DatagramPeer.open(lab.y, { address: y, port: 0 })
    client.send('question', asked)
    const answer = await client.next()
    assert.deepEqual([`${answer?.bytes}`, answer?.from], ['answer', asked])
    assert.deepEqual(found, [asked])
  })

  test(`one that answers for many addresses opens few sockets, and closes them, IPv${family}`, async () => {
    const before = descriptors()
    const socket = await taking({ address: LOOPBACK[family], port: 50_080, transparent: true }, (datagram, socket) => {
      socket.reply(datagram, datagram.bytes)
    })
    const servers = Array.from({ length: 300 }, (_, i) => ({
      address: family === 4 ? `198.18.${i >> 8}.${i & 0xff}` : `2001:db8:18::${(i + 1).toString(16)}`,
      port: 5_300,
    }))
    {
      await using client = await DatagramPeer.open(lab.y, { address: y, port: 0 })
      for (const server of servers) {
        client.send('question', server)
        assert.deepEqual((await client.next())?.from, server)
      }
    }
    const most = before + 1 + 256
    assert.ok(descriptors() <= most, `${descriptors()} descriptors are open; expected at most ${most}`)
    socket.close()
    assert.equal(descriptors(), before)
  })
}

test('what nobody takes waits in a bounded queue and in the kernel, the rest is lost; then all goes on', async () => {
  await using socket = await bindUdp({ port: 5_304 })
  await using client = await DatagramPeer.open(lab.y, { address: ADDRESSES[4].y, port: 0 })
  const to = { address: ADDRESSES[4].xy, port: 5_304 }
  const SENT = 5_000
  for (let i = 0; i < SENT; i++) {
    client.send(`${i}`, to)
    if (i % 50 === 0) await nextTurn() // the socket under test has its turn too, before the kernel's buffer is full
  }
  const taken: number[] = []
  void (async () => {
    for await (const { bytes } of socket) taken.push(Number(Buffer.from(bytes).toString()))
  })()
  await until(() => taken.length >= 1_024, 'the datagrams of the queue')
  const comesNow = (): boolean => {
    if (taken.at(-1) === SENT) return true
    client.send(`${SENT}`, to) // the kernel's buffer may still be full
    return false
  }
  await until(comesNow, 'a datagram that was sent afterwards')
  const inOrder = taken.toSorted((a, b) => a - b)
  assert.deepEqual(taken, inOrder)
  assert.equal(taken[1_023], 1_023, 'the first that came are those that are kept')
  assert.ok(taken.length < SENT / 2, `${taken.length} were kept`)
})

test('an abort closes the socket and ends the iteration; one that came before is the reason of a rejection', async () => {
  const before = descriptors()
  const aborter = new AbortController()
  const socket = await bindUdp({ port: 5_305, signal: aborter.signal })
  const ended = (async () => {
    for await (const _ of socket) assert.fail('nobody sends')
    return 'ended'
  })()
  aborter.abort()
  assert.equal(await ended, 'ended')
  assert.equal(descriptors(), before)
  assert.throws(() => socket.send('late', { address: ADDRESSES[4].z, port: 53 }), { code: 'LIMPID_USAGE' })
  socket.close()
  await assert.rejects(bindUdp({ signal: AbortSignal.abort(new Error('never mind')) }), /never mind/)
})

test('what cannot be sent is LIMPID_SEND with the reason, and the next datagram goes', async () => {
  await using server = await DatagramPeer.open(lab.z, { address: ADDRESSES[4].z, port: 53 })
  await using socket = await bindUdp()
  const nowhere = { address: '203.0.113.1', port: 53 }
  assert.throws(() => socket.send(new Uint8Array(65_508), server.address), {
    code: 'LIMPID_SEND',
    message: 'cannot send 65508 bytes to 10.0.4.2:53: EMSGSIZE',
  })
  assert.throws(() => socket.send('hello', nowhere), { code: 'LIMPID_SEND', message: /ENETUNREACH/ })
  assert.throws(() => socket.send('hello', server.address, { from: FOREIGN[4] }), { code: 'LIMPID_SEND' })
  assert.equal(socket.send(new Uint8Array(65_507), server.address), true)
  assert.equal((await server.next())?.bytes.length, 65_507)
})

test('an address that is taken or not ours is LIMPID_LISTEN; what is no address, or of another family, LIMPID_USAGE', async () => {
  const before = descriptors()
  await using socket = await bindUdp({ port: 5_306 })
  await assert.rejects(bindUdp({ port: 5_306 }), { code: 'LIMPID_LISTEN', message: /5306.*EADDRINUSE/ })
  await assert.rejects(bindUdp({ address: FOREIGN[4] }), { code: 'LIMPID_LISTEN', message: /EADDRNOTAVAIL/ })
  for (const options of [{ address: 'localhost' }, { port: 65_536 }, { port: 1.5 }]) {
    await assert.rejects(bindUdp(options), { code: 'LIMPID_USAGE' })
  }
  const usage = { code: 'LIMPID_USAGE' }
  assert.throws(() => socket.send('hello', { address: ADDRESSES[6].z, port: 53 }), usage)
  assert.throws(() => socket.send('hello', { address: ADDRESSES[4].z, port: 0 }), usage)
  assert.throws(() => socket.send('hello', { address: ADDRESSES[4].z, port: 53 }, { from: FOREIGN[6] }), usage)
  assert.equal(descriptors(), before + 1)
})

test('two iterations at once are an error; one after the other goes on where the first left off', async () => {
  await using socket = await bindUdp({ port: 5_307 })
  await using client = await DatagramPeer.open(lab.y, { address: ADDRESSES[4].y, port: 0 })
  for (const text of ['one', 'two']) client.send(text, { address: ADDRESSES[4].xy, port: 5_307 })
  for await (const { bytes } of socket) {
    assert.equal(Buffer.from(bytes).toString(), 'one')
    await assert.rejects(socket[Symbol.asyncIterator]().next(), { code: 'LIMPID_USAGE' })
    break
  }
  for await (const { bytes } of socket) {
    assert.equal(Buffer.from(bytes).toString(), 'two')
    break
  }
})
