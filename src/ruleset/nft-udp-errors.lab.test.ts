import assert from 'node:assert/strict'
import { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { DEFAULT_RULES } from '../config/defaults.ts'
import type { ListenerConfig } from '../config/types.ts'
import { Host } from '../lab/host.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import type { Family } from '../net/address.ts'
import { setMark, setTransparent } from '../sys/options.ts'
import { mustRun } from '../sys/program.ts'
import { bindSocket, openTcp } from '../sys/socket.ts'
import { ask, CLIENT, FAMILIES, listener, SERVER } from './gateway.fixture.ts'
import { installRules } from './nft-udp.fixture.ts'
import { anyOf, Datagrams, upstreamSocket } from './udp.fixture.ts'
import { at, endsOf, listening, type Networks, raiseNetworks, text, udpListener } from './udp-networks.fixture.ts'

await enterNamespaces()

/** Behind Z, over a link of MTU 1300; it says that its own is larger. */
const FAR = { 4: '10.0.5.2', 6: 'fd00:5::2' } as const
const BIG = 'b'.repeat(1_400) // more than that link carries in one piece, and less than the one before it
const TORN = 't'.repeat(3_500) // three fragments

let networks: Networks
let far: Host
before(async () => {
  networks = await raiseNetworks()
  far = await raiseFar()
})
after(async () => {
  await far.close()
  await networks.close()
})

async function raiseFar(): Promise<Host> {
  const { z } = networks.gateway
  const host = await Host.create('far')
  for (const each of [z, host]) each.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
  z.setSysctls({ 'net.ipv4.ip_forward': '1', 'net.ipv6.conf.all.forwarding': '1' })
  await z.run('ip', ['link', 'add', 'far', 'mtu', '1300', 'type', 'veth', 'peer', 'name', 'x', 'netns', host.path])
  const ofZ = ['link set far up', 'address add 10.0.5.1/24 dev far', 'address add fd00:5::1/64 dev far nodad']
  await z.run('ip', ['-batch', '-'], { input: ofZ.join('\n') })
  const ofFar = [
    'link set x mtu 1300 up',
    `address add ${FAR[4]}/24 dev x`,
    `address add ${FAR[6]}/64 dev x nodad`,
    'route add default via 10.0.5.1 advmss 1440',
    'route add default via fd00:5::1 dev x advmss 1420',
  ]
  await host.run('ip', ['-batch', '-'], { input: ofFar.join('\n') })
  const here = [`route add 10.0.5.0/24 via ${SERVER[4]}`, `route add fd00:5::/64 via ${SERVER[6]}`]
  await mustRun('ip', ['-batch', '-'], { input: here.join('\n') })
  return host
}

const FORWARDER: Partial<ListenerConfig> = {
  ...{ intercept: 'none', source: 'client', paths: [] },
  listen: FAMILIES.map((family) => at(anyOf(family), 1)),
}

test('a port that is unreachable is told to the socket that sent with the client’s address', async () => {
  for (const one of [
    udpListener('tproxy', 'forwarded'),
    udpListener('redirect', 'forwarded', { source: 'client' }),
    listener({ ...FORWARDER, protocols: ['udp'] }),
  ]) {
    await using _rules = await installRules(one)
    for (const family of FAMILIES) {
      using upstream = upstreamSocket(at(CLIENT[family], 0), at(SERVER[family], 9))
      upstream.send('anybody?')
      assert.equal(await upstream.next(), 'ECONNREFUSED')
    }
  }
})

test('a datagram with the client’s address that is too big is told to its socket, and the next one arrives in pieces', async () => {
  await using _rules = await installRules(udpListener('tproxy', 'forwarded'))
  for (const family of FAMILIES) {
    using server = new Datagrams(at(FAR[family], 9_000), { on: far })
    using upstream = upstreamSocket(at(CLIENT[family], 0), server.local)
    upstream.send('small')
    assert.equal(await server.answer('yes'), `small from ${text(upstream.local)}`)
    assert.equal(await upstream.next(), `yes from ${text(server.local)}`)
    upstream.send(BIG)
    assert.equal(await upstream.next(), 'EMSGSIZE')
    upstream.send(BIG)
    assert.equal(await server.next(), `${BIG} from ${text(upstream.local)}`)
  }
})

test('a connection with the client’s address learns the MTU of its way', async () => {
  await using _rules = await installRules(listener({ ...FORWARDER, protocols: ['tcp'] }))
  for (const family of FAMILIES) {
    const server = far.listen(at(FAR[family], 9_001))
    server.on('connection', (socket) => {
      let bytes = 0
      socket.on('data', (chunk) => {
        bytes += chunk.length
        if (bytes === 100_000) socket.end('whole')
      })
    })
    const socket = new Socket({ fd: transparentTcp(family), allowHalfOpen: true })
    socket.connect({ host: FAR[family], port: 9_001 })
    socket.write(Buffer.alloc(100_000))
    assert.equal(await ask(socket), 'whole')
    server.close()
  }
})

function transparentTcp(family: Family): number {
  const fd = openTcp(family)
  setTransparent(fd, family)
  setMark(fd, DEFAULT_RULES.bypassMark)
  bindSocket(fd, at(CLIENT[family], 0))
  return fd
}

for (const path of ['forwarded', 'bridged'] as const) {
  for (const mode of ['tproxy', 'mark', 'redirect'] as const) {
    test(`${mode}, ${path}: a datagram in several fragments reaches the listener, and one that answers the socket with the client's address`, async () => {
      const one = udpListener(mode, path, { source: 'client' })
      using sockets = listening(one)
      await using _rules = await installRules(one)
      const on = path === 'forwarded' ? networks.gateway.z : networks.bridge.z
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(networks, path, family)
        using client = open()
        client.send(TORN, server)
        assert.equal(await sockets[family].next(), `${TORN} from ${text(client.local)}`)
        using answering = new Datagrams(at(server.address, 8_080), { on })
        using upstream = upstreamSocket(at(client.local.address, 0), answering.local)
        upstream.send('question')
        await answering.answer(TORN)
        assert.equal(await upstream.next(), `${TORN} from ${text(answering.local)}`)
        if (path === 'forwarded') continue
        client.send(TORN, answering.local) // nobody takes it
        assert.equal(await answering.next(), `${TORN} from ${text(client.local)}`)
      }
    })
  }
}
