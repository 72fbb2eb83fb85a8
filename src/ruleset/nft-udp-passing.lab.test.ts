import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ForwardConfig } from '../config/types.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { CLIENT, configOf, FAMILIES, PROXY, SERVER } from './gateway.fixture.ts'
import { installConfig, installRules } from './nft-udp.fixture.ts'
import { Datagrams, SILENT_MS, upstreamSocket } from './udp.fixture.ts'
import {
  at,
  converse,
  EXCLUDED,
  endsOf,
  listening,
  type Networks,
  NOT_EXCLUDED,
  PATHS,
  PROXY_TO_Z,
  raiseNetworks,
  text,
  udpListener,
  WIDE,
} from './udp-networks.fixture.ts'

await enterNamespaces()

let networks: Networks
before(async () => {
  networks = await raiseNetworks()
})
after(async () => await networks.close())

const FROM_Y = { ...MATCH_ANY, interfaces: ['y'] }
const FROM_B_Y = { ...MATCH_ANY, interfaces: ['b-y'] }

for (const path of ['forwarded', 'bridged'] as const) {
  test(`tproxy of all ports, ${path}: answers of flows that are excluded, or began on the other side, pass by`, async () => {
    const { y, z } = path === 'forwarded' ? networks.gateway : networks.bridge
    const match = path === 'forwarded' ? FROM_Y : FROM_B_Y
    const exclude = { ...MATCH_ANY, ports: [{ from: 81, to: 81 }] }
    // the one takes from everywhere, the other from one side
    for (const changes of [{ exclude }, { match, exclude }]) {
      const listener = udpListener('tproxy', path, { ...WIDE, ...changes })
      using sockets = listening(listener)
      await using _rules = await installRules(listener)
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(networks, path, family)
        using client = open()
        await converse(client, at(server.address, 81))
        client.send('taken', server)
        assert.equal(await sockets[family].next(), `taken from ${text(client.local)}`)
        if (!('match' in changes)) continue
        const service = at(client.local.address, 5_300)
        using _service = new Datagrams(service, { on: y }).serve()
        using asking = new Datagrams(at(server.address, 0), { on: z })
        await converse(asking, service)
        assert.equal(await sockets[family].next(SILENT_MS), 'silence')
      }
    }
  })
}

test('a listener of what is addressed to this host, of all ports, leaves it the answers to its own questions', async () => {
  const changes = { ...WIDE, addressedHere: true, onDown: 'closed' } as const
  for (const mode of ['tproxy', 'redirect'] as const) {
    const listener = udpListener(mode, 'forwarded', changes)
    using sockets = listening(listener)
    await using _rules = await installRules(listener)
    for (const family of FAMILIES) {
      const server = at(SERVER[family], 80)
      for (const mark of [0, DEFAULT_RULES.bypassMark]) {
        using own = new Datagrams(at(PROXY_TO_Z[family], 0), { mark, to: server })
        own.send('question')
        assert.equal(await own.next(), `server saw ${text(own.local)} from ${text(server)}`)
      }
      using client = new Datagrams(at(CLIENT[family], 0), { on: networks.gateway.y })
      client.send('here', at(PROXY[family], 7_000))
      assert.equal(await sockets[family].next(), `here from ${text(client.local)}`)
    }
  }
})

test('what the kernel passes on keeps its answers under a listener of all ports', async () => {
  const listener = udpListener('tproxy', 'forwarded', WIDE)
  const forward: ForwardConfig = {
    ...{ name: 'on', protocols: ['udp'], exclude: MATCH_ANY, source: 'client', healthMs: 0 },
    match: { ...MATCH_ANY, ports: [{ from: 53, to: 53 }] },
    to: at(SERVER[4], 81),
  }
  using _sockets = listening(listener)
  await using _rules = await installConfig({ ...configOf(listener), forwards: [forward] })
  using client = new Datagrams(at(CLIENT[4], 0), { on: networks.gateway.y })
  await converse(client, at(PROXY[4], 53))
})

for (const path of ['forwarded', 'bridged'] as const) {
  test(`${path}, with the client's port: late answers reach the client, which does not pass by the listener from then on`, async () => {
    const { z } = path === 'forwarded' ? networks.gateway : networks.bridge
    for (const match of [path === 'forwarded' ? FROM_Y : FROM_B_Y, MATCH_ANY]) {
      const listener = udpListener('tproxy', path, { match, source: 'client-port', onDown: 'closed' })
      using sockets = listening(listener)
      await using rules = await installRules(listener)
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(networks, path, family)
        using late = new Datagrams(at(server.address, 5_300), { on: z })
        using client = open()
        client.send('one', late.local)
        assert.equal(await sockets[family].next(), `one from ${text(client.local)}`)
        if (path === 'forwarded') {
          late.send('late', client.local)
          assert.equal(await client.next(), `late from ${text(late.local)}`)
        }
        client.send('two', late.local)
        assert.equal(await sockets[family].next(), `two from ${text(client.local)}`)
      }
      await rules.removeMain()
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(networks, path, family)
        using late = new Datagrams(at(server.address, 5_300), { on: z })
        using client = open()
        client.send('three', late.local)
        assert.equal(await late.next(SILENT_MS), 'silence')
      }
    }
  })
}

for (const path of ['forwarded', 'bridged'] as const) {
  test(`${path}, closed, with the client's port: answers that go on when the rules are gone do not open the guard`, async () => {
    const { z } = path === 'forwarded' ? networks.gateway : networks.bridge
    const match = path === 'forwarded' ? FROM_Y : FROM_B_Y
    const listener = udpListener('tproxy', path, { match, source: 'client-port', onDown: 'closed' })
    using sockets = listening(listener)
    await using rules = await installRules(listener)
    const pairs = FAMILIES.map((family) => {
      const { client, server } = endsOf(networks, path, family)
      return { family, client: client(), server: new Datagrams(at(server.address, 5_300), { on: z }) }
    })
    try {
      for (const { family, server, client } of pairs) {
        using upstream = upstreamSocket(client.local, server.local)
        for (const word of ['one', 'two']) {
          client.send(word, server.local)
          assert.equal(await sockets[family].next(), `${word} from ${text(client.local)}`)
          upstream.send(word)
          assert.equal(await server.answer('answer'), `${word} from ${text(client.local)}`)
          assert.equal(await upstream.next(), `answer from ${text(server.local)}`)
        }
      }
      await rules.removeMain()
      for (const { server, client } of pairs) {
        server.send('more', client.local)
        assert.equal(await client.next(), `more from ${text(server.local)}`)
        client.send('three', server.local)
        assert.equal(await server.next(SILENT_MS), 'silence')
      }
    } finally {
      for (const { server, client } of pairs) for (const socket of [server, client]) socket[Symbol.dispose]()
    }
  })
}

test('closed, of all ports: with the rules gone, what is excluded has its answers, and so have this host’s servers', async () => {
  const closed = { ...WIDE, onDown: 'closed', exclude: NOT_EXCLUDED } as const
  for (const mode of ['tproxy', 'redirect'] as const) {
    const listeners = [udpListener(mode, 'forwarded', closed), udpListener(mode, 'local', closed)]
    await using rules = await installRules(...listeners)
    await rules.removeMain()
    for (const family of FAMILIES) {
      const server = at(SERVER[family], 80)
      using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: networks.gateway.y })
      await converse(excluded, server)
      const service = at(PROXY[family], 5_300)
      using _service = new Datagrams(service).serve()
      await converse(excluded, service)
      for (const path of ['forwarded', 'local'] as const) {
        using client = endsOf(networks, path, family).client()
        client.send('question', server)
        assert.equal(await client.next(SILENT_MS), 'silence')
      }
    }
  }
})

test('open: with the rules gone, every datagram goes on to its server', async () => {
  for (const path of PATHS) {
    const listener = udpListener('tproxy', path, WIDE)
    await using rules = await installRules(listener)
    await rules.removeMain()
    for (const family of FAMILIES) {
      const { client: open, server } = endsOf(networks, path, family)
      using client = open()
      await converse(client, server)
    }
  }
})
