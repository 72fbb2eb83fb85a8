import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Host } from '../lab/host.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { patternHash, type Received, receiveAll, sendPattern, serve } from '../lab/traffic.fixture.ts'
import type { Endpoint, Family } from '../net/address.ts'
import { type Gateway, RULES, routeMarked, startGateway } from './gateway.fixture.ts'

await enterNamespaces()

const SIZE = 3_000_000
let lab: Topology

before(async () => {
  lab = await raiseTopology()
  await routeMarked(lab.x)
  // a client on X may not have the port of the next test's listener on all addresses, not even in TIME_WAIT
  lab.x.setSysctls({ 'net.ipv4.ip_local_reserved_ports': '50080-50083' })
})

after(() => lab.close())

const MODES = {
  redirect: { listener: 'intercept: redirect', rules: RULES.redirect(':50080'), port: 50_080 },
  'redirect to a range': {
    listener: 'intercept: redirect, listen: 50080-50083',
    rules: RULES.redirect(':50080-50083 random'),
    port: 50_080,
  },
  dnat: {
    listener: `intercept: dnat, listen: ["${ADDRESSES[4].xy}:50080", "[${ADDRESSES[6].xy}]:50080"]`,
    rules: RULES.dnat(`${ADDRESSES[4].xy}:50080`, `[${ADDRESSES[6].xy}]:50080`),
    port: 50_080,
  },
  mark: { listener: 'intercept: mark, ports: 80', rules: RULES.mark, port: 80 },
}
const SOURCES = ['proxy', 'client', 'client-port'] as const

/** Sends the pattern and FIN, and reads what the server answers after that. */
async function exchange(from: Host, to: Endpoint, seed: number): Promise<{ received: Received; localPort: number }> {
  const client = from.connect(to)
  const received = receiveAll(client)
  await sendPattern(client, seed, SIZE)
  const { localPort } = client
  client.end()
  return { received: await received, localPort: localPort! }
}

for (const [mode, { listener, rules }] of Object.entries(MODES)) {
  for (const family of [4, 6] as const) {
    test(`${mode}, IPv${family}: bytes, half-close, the server's view and the original destination are right, with every source`, async () => {
      const { y, xz, z } = ADDRESSES[family]
      const endpoint = { address: z, port: 80 }
      const heard: Received[] = []
      await using server = await serve(lab.z, endpoint, async (socket) => {
        heard.push(await receiveAll(socket))
        await sendPattern(socket, 9, SIZE)
        socket.end()
      })
      for (const source of SOURCES) {
        await using gateway = await startGateway(lab.x, `{ ${listener}, source: ${source} }`, rules)
        const { received, localPort } = await exchange(lab.y, endpoint, 5)
        const record = await gateway.nextRecord()
        assert.deepEqual(received, { bytes: SIZE, sha256: patternHash(9, SIZE), failure: undefined }, source)
        assert.deepEqual(heard.pop(), { bytes: SIZE, sha256: patternHash(5, SIZE), failure: undefined }, source)
        const seen = server.peers.pop()!
        assert.equal(seen.address, source === 'proxy' ? xz : y)
        if (source === 'client-port') assert.equal(seen.port, localPort)
        assert.deepEqual(
          [record.originalDst, record.upstream, record.client, record.sourceAddr, record.source, record.reason],
          [endpoint, endpoint, { address: y, port: localPort }, seen, source, 'closed'],
        )
        assert.equal(gateway.proxy.stats().dials, 1)
      }
    })
  }
}

/** What a server answers to one byte and FIN. */
function ask(from: Host, to: Endpoint): Promise<Received> {
  const client = from.connect(to)
  client.end('?')
  return receiveAll(client)
}

/** Dials the listener itself: a reset, reason `loop`, nothing dialled. */
async function assertRefused(gateway: Gateway, from: Host, to: Endpoint): Promise<void> {
  const { dials } = gateway.proxy.stats()
  const startedAt = performance.now()
  const socket = from.connect(to)
  socket.write('hello')
  const { failure, bytes } = await receiveAll(socket)
  const what = `${from.name} → ${to.address} ${to.port}`
  assert.deepEqual([failure, bytes], ['ECONNRESET', 0], what)
  assert.ok(performance.now() - startedAt < 5_000, what) // proxy/abuse holds it at 100 ms
  const record = await gateway.nextRecord()
  assert.deepEqual([record.reason, record.refused, record.upstream], ['loop', true, undefined], what)
  assert.deepEqual(record.originalDst, to)
  assert.equal(gateway.proxy.stats().dials, dials, what)
}

for (const [mode, { listener, rules, port }] of Object.entries(MODES)) {
  test(`T1: ${mode}: who dials the listener itself gets a reset, and nothing is dialled`, async () => {
    await using gateway = await startGateway(lab.x, `{ ${listener}, source: client }`, rules)
    const everywhere = [ADDRESSES[4].xy, ADDRESSES[4].xz, ADDRESSES[6].xy, ADDRESSES[6].xz]
    const outside = mode === 'dnat' ? [ADDRESSES[4].xy, ADDRESSES[6].xy] : everywhere
    const inside = mode === 'dnat' ? outside : [...everywhere, '127.0.0.1', '127.9.9.9', '::1']
    for (const { port } of gateway.listening.slice(0, 4)) {
      for (const address of outside) await assertRefused(gateway, lab.y, { address, port })
      for (const address of inside) await assertRefused(gateway, lab.x, { address, port })
    }
    await lab.x.run('nft', ['-f', '-'], {
      input: `table inet hand { chain untracked { type filter hook prerouting priority raw; tcp dport ${port} notrack
}\n}\n`,
    })
    if (mode !== 'mark') for (const address of outside) await assertRefused(gateway, lab.y, { address, port })
  })
}

test('T1: redirect: an address that this host has had for an instant is known for a loop', async () => {
  const address = '10.0.3.77'
  const server = { address: ADDRESSES[4].z, port: 80 }
  await using _server = await serve(lab.z, server, (socket) => socket.end())
  await using gateway = await startGateway(lab.x, '{ intercept: redirect }', MODES.redirect.rules)
  await ask(lab.y, server) // the addresses of this host are read
  assert.equal((await gateway.nextRecord()).reason, 'closed')
  await lab.x.run('ip', ['address', 'add', `${address}/32`, 'dev', X_TO_Y])
  await assertRefused(gateway, lab.y, { address, port: 50_080 })
  await lab.x.run('ip', ['address', 'del', `${address}/32`, 'dev', X_TO_Y])
})

test('T2: what is addressed to this host goes to the given server, to one of our listeners never, without a server nowhere', async () => {
  const server = { address: ADDRESSES[4].z, port: 8080 }
  await using _server = await serve(lab.z, server, (socket) => socket.end('z'))
  const here = { address: ADDRESSES[4].xy, port: 80 }
  const forwarder = '{ intercept: none, listen: 81, to: 10.0.4.2 }'
  {
    const first = '{ intercept: redirect, addressedHere: true, to: "10.0.4.2:8080" }'
    await using gateway = await startGateway(lab.x, `${first}, ${forwarder}`, MODES.redirect.rules)
    assert.equal((await ask(lab.y, here)).bytes, 1)
    const record = await gateway.nextRecord()
    assert.deepEqual([record.originalDst, record.upstream, record.reason], [here, server, 'closed'])
    await assertRefused(gateway, lab.y, { ...here, port: 81 })
  }
  await using gateway = await startGateway(lab.x, '{ intercept: redirect }', MODES.redirect.rules)
  await assertRefused(gateway, lab.y, here)
})

test('redirect to a range: connections are spread over its ports', async () => {
  const server = { address: ADDRESSES[4].z, port: 80 }
  await using _server = await serve(lab.z, server, (socket) => socket.write('z'))
  const { listener, rules } = MODES['redirect to a range']
  await using gateway = await startGateway(lab.x, `{ ${listener}, source: client }`, rules)
  const clients = await Promise.all(
    Array.from({ length: 60 }, async () => {
      const client = lab.y.connect(server)
      client.on('error', () => {})
      await new Promise((resolve) => client.once('data', resolve))
      return client
    }),
  )
  const lines = (await lab.x.run('ss', ['-Htn', 'sport >= :50080 and sport <= :50083'])).trim().split('\n')
  const ports = new Set(lines.map((line) => /:(5008\d)\s/.exec(line)?.[1]))
  assert.equal(lines.length, 60)
  assert.deepEqual([...ports].sort(), ['50080', '50081', '50082', '50083'])
  assert.equal(gateway.proxy.stats().dials, 60)
  for (const client of clients) client.destroy()
})

const LOCAL = {
  redirect: { listener: 'intercept: redirect', rules: RULES.localRedirect },
  mark: { listener: 'intercept: mark, ports: 80', rules: RULES.localMark },
  tproxy: { listener: 'intercept: tproxy', rules: RULES.localTproxy },
}
const LOCAL_FLOWS = 500

for (const [mode, { listener, rules }] of Object.entries(LOCAL)) {
  for (const family of [4, 6] as Family[]) {
    test(`local ${mode}, IPv${family}: ${LOCAL_FLOWS} clients on the proxy host itself are relayed at once, each dialled once`, async () => {
      const { xz, z } = ADDRESSES[family]
      const endpoint = { address: z, port: 80 }
      await using server = await serve(lab.z, endpoint, (socket) => socket.pipe(socket))
      for (const source of SOURCES) {
        server.peers.length = 0
        await using gateway = await startGateway(lab.x, `{ ${listener}, paths: local, source: ${source} }`, rules)
        const answers = await Promise.all(
          Array.from({ length: LOCAL_FLOWS }, (_, i) => {
            const client = lab.x.connect(endpoint)
            client.end(`request ${i}`)
            return receiveAll(client)
          }),
        )
        assert.equal(answers.filter(({ failure }) => failure !== undefined).length, 0)
        assert.deepEqual(
          answers.map(({ bytes }) => bytes),
          answers.map((_, i) => `request ${i}`.length),
        )
        for (let i = 0; i < LOCAL_FLOWS; i++) {
          const record = await gateway.nextRecord()
          assert.deepEqual([record.reason, record.originalDst], ['closed', endpoint])
          assert.equal(record.client.address, xz)
          assert.equal(record.source, source === 'client-port' ? 'client' : source, 'its port is held by the client')
        }
        const { dials, flowsTotal } = gateway.proxy.stats()
        assert.equal(flowsTotal, LOCAL_FLOWS)
        assert.equal(server.peers.length, LOCAL_FLOWS)
        assert.ok(server.peers.every(({ address }) => address === xz))
        assert.equal(dials, LOCAL_FLOWS)
      }
    })
  }
}

test('T3: a listener of both paths shows the server either client; a loopback address is never lent', async () => {
  const { y, xz, z } = ADDRESSES[4]
  const endpoint = { address: z, port: 80 }
  await using server = await serve(lab.z, endpoint, (socket) => socket.end('z'))
  const listener = `{ intercept: redirect, family: 4, paths: [forwarded, local], source: client, to: ${z} }`
  const loopback = `table inet hand { chain loopback { type nat hook output priority -101
    ip daddr 127.0.0.1 tcp dport 80 redirect to :50080\n}\n}`
  const rules = [MODES.redirect.rules, LOCAL.redirect.rules, loopback].join('\n')
  await using gateway = await startGateway(lab.x, listener, rules)
  assert.equal((await ask(lab.y, endpoint)).bytes, 1)
  assert.equal((await ask(lab.x, endpoint)).bytes, 1)
  assert.deepEqual(
    server.peers.map(({ address }) => address),
    [y, xz],
  )
  assert.equal((await ask(lab.x, { address: '127.0.0.1', port: 80 })).failure, 'ECONNRESET')
  for (const reason of ['closed', 'closed', 'source']) assert.equal((await gateway.nextRecord()).reason, reason)
  assert.equal(gateway.proxy.stats().dials, 2)
})
