import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ListenerConfig, Path } from '../config/types.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { parsePrefix } from '../net/prefix.ts'
import { mustRun } from '../sys/program.ts'
import { CLIENT, FAMILIES, type Gateway, PROXY, raiseGateway, SERVER } from './gateway.fixture.ts'
import { type Bridge, installChains, listenerFor, MODES, raiseBridge } from './iptables.fixture.ts'
import { listOurChains, removeChains } from './iptables-commands.ts'
import { anyOf, type DatagramOptions, Datagrams, replySocket, upstreamSocket } from './udp.fixture.ts'

await enterNamespaces()

const PATHS = ['forwarded', 'local', 'bridged'] as const
const EXCLUDED = { 4: '10.0.3.2', 6: 'fd00:3::2' } as const
const BRIDGED = { 4: ['10.0.9.1', '10.0.9.2'], 6: ['fd00:9::1', 'fd00:9::2'] } as const

let gateway: Gateway
let bridge: Bridge
const servers: Datagrams[] = []
before(async () => {
  gateway = await raiseGateway()
  bridge = await raiseBridge()
  for (const line of [`-4 address add ${EXCLUDED[4]}/24 dev x`, `-6 address add ${EXCLUDED[6]}/64 dev x nodad`]) {
    await gateway.y.run('ip', line.split(' '))
  }
  for (const on of [gateway.z, bridge.z]) {
    for (const family of FAMILIES) {
      for (const port of [80, 81]) servers.push(new Datagrams({ address: anyOf(family), port }, { on }).serve())
    }
  }
})
after(async () => {
  for (const server of servers) server[Symbol.dispose]()
  await gateway.close()
  await bridge.close()
})

const WIDE = { match: MATCH_ANY } // of all ports
const NOT_EXCLUDED = {
  ...MATCH_ANY,
  sources: Object.values(EXCLUDED).map((address) => parsePrefix(address)!),
}

function udpListener(mode: (typeof MODES)[number], path: Path, changes: Partial<ListenerConfig> = {}): ListenerConfig {
  return listenerFor(mode, path, { protocols: ['udp'], ...changes })
}

/** The listener's socket as the proxy makes it. */
function listening({ intercept, listen, families }: ListenerConfig): Record<Family, Datagrams> & Disposable {
  const transparent = intercept === 'tproxy' || intercept === 'mark'
  const open = (family: Family) => {
    const endpoint = listen.find(({ address }) => address.includes(':') === (family === 6))!
    return new Datagrams(endpoint, { transparent, mark: DEFAULT_RULES.bypassMark })
  }
  assert.deepEqual(families, [4, 6])
  const sockets = { 4: open(4), 6: open(6) }
  return {
    ...sockets,
    [Symbol.dispose]: () => {
      for (const family of FAMILIES) sockets[family][Symbol.dispose]()
    },
  }
}

/** Who sends to whom on a path. */
function endsOf(path: Path, family: Family) {
  const [near, far] = path === 'bridged' ? BRIDGED[family] : [CLIENT[family], SERVER[family]]
  const on = { forwarded: gateway.y, bridged: bridge.y, local: undefined }[path]
  const address = path === 'local' ? PROXY_TO_Z[family] : near
  const place: DatagramOptions = on === undefined ? {} : { on }
  return { client: () => new Datagrams({ address, port: 0 }, place), server: { address: far, port: 80 } }
}

const PROXY_TO_Z = { 4: '10.0.4.1', 6: 'fd00:4::1' } as const
const at = (address: string, port: number): Endpoint => ({ address, port })
const text = formatEndpoint

for (const path of PATHS) {
  for (const mode of MODES) {
    test(`${mode} on the path ${path}: the listener gets every datagram, and its answers come from the server's address`, async () => {
      // on lo, an answer of a socket that is bound to no address comes from another than where the question went
      const listen = FAMILIES.map((family) => at(family === 4 ? '127.0.0.1' : '::1', 50_080))
      const listener = udpListener(mode, path, mode === 'redirect' && path === 'local' ? { listen } : {})
      using sockets = listening(listener)
      await using _rules = await installChains(listener)
      for (const family of FAMILIES) {
        const ends = endsOf(path, family)
        using client = ends.client()
        const sender = text(client.local)
        for (const word of ['one', 'two']) {
          client.send(word, ends.server)
          if (mode === 'redirect' || mode === 'dnat') {
            assert.equal(await sockets[family].answer(`re ${word}`), `${word} from ${sender}`)
          } else {
            assert.equal(await sockets[family].next(), `${word} from ${sender}`)
            using reply = mode === 'tproxy' ? replySocket(ends.server) : ownSocket(ends.server)
            reply.send(`re ${word}`, client.local)
          }
          assert.equal(await client.next(), `re ${word} from ${text(ends.server)}`)
        }
        client.send('by', at(ends.server.address, 81))
        assert.equal(await client.next(), `server saw ${sender} from ${text(at(ends.server.address, 81))}`)
      }
    })
  }
}

/** A mark listener sends its answers by itself, with the original destination as their source. */
function ownSocket(original: Endpoint): Datagrams {
  return new Datagrams(original, { transparent: true, mark: DEFAULT_RULES.bypassMark })
}

for (const path of ['forwarded', 'bridged'] as const) {
  for (const mode of MODES) {
    test(`${mode} on the path ${path}: answers to the client's address and port come to the upstream socket`, async () => {
      const wide = mode === 'tproxy' ? WIDE : {}
      const listener = udpListener(mode, path, { ...wide, source: 'client-port' })
      using sockets = listening(listener)
      await using _rules = await installChains(listener)
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(path, family)
        using client = open()
        const { address, port } = client.local
        for (const from of [at(address, 0), at(address, port)]) {
          client.send('question', server)
          assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
          using upstream = upstreamSocket(from, server)
          for (const word of ['first', 'second']) {
            upstream.send(word)
            assert.equal(await upstream.next(), `server saw ${text(upstream.local)} from ${text(server)}`)
          }
        }
        assert.equal(await client.next(), 'silence')
      }
    })
  }
}

for (const changes of [WIDE, {}]) {
  const ports = changes === WIDE ? 'all ports' : 'one port'
  test(`tproxy of ${ports}: what answers clients with the server's address and port takes none of their datagrams`, async () => {
    const listener = udpListener('tproxy', 'forwarded', { ...changes, exclude: NOT_EXCLUDED })
    using sockets = listening(listener)
    await using _rules = await installChains(listener)
    for (const family of FAMILIES) {
      const server = at(SERVER[family], 80)
      using reply = replySocket(server)
      using client = new Datagrams(at(CLIENT[family], 0), { on: gateway.y })
      using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: gateway.y })
      for (const word of ['one', 'two']) {
        client.send(word, server)
        assert.equal(await sockets[family].next(), `${word} from ${text(client.local)}`)
        reply.send('answer', client.local)
        assert.equal(await client.next(), `answer from ${text(server)}`)
        excluded.send(word, server)
        assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(server)}`)
      }
      assert.equal(await reply.next(), 'silence')
    }
  })
}

test('tproxy of all ports: a flow goes on after conntrack has forgotten it and our answer begins it anew', async () => {
  const listener = udpListener('tproxy', 'forwarded', WIDE)
  const local = udpListener('tproxy', 'local', WIDE)
  using sockets = listening(listener)
  await using _rules = await installChains(listener, local)
  for (const path of ['forwarded', 'local'] as const) {
    for (const family of FAMILIES) {
      const { client: open, server } = endsOf(path, family)
      using client = open()
      using reply = replySocket(server)
      reply.send('push', client.local)
      assert.equal(await client.next(), `push from ${text(server)}`)
      client.send('thanks', server)
      assert.equal(await sockets[family].next(), `thanks from ${text(client.local)}`)
    }
  }
})

test('marks of others stay on what a listener takes, and on what passes by', async () => {
  const listener = udpListener('tproxy', 'forwarded', { ...WIDE, exclude: NOT_EXCLUDED })
  using sockets = listening(listener)
  await using _rules = await installChains(listener)
  const rules = [
    'mangle PREROUTING -p udp -j MARK --set-xmark 0x5/0xff',
    'filter INPUT -p udp -m mark ! --mark 0x5/0xff -j DROP',
    'filter FORWARD -p udp -m mark ! --mark 0x5/0xff -j DROP',
  ]
  const change = async (verb: '-I' | '-D') => {
    for (const program of ['iptables', 'ip6tables']) {
      for (const [table, ...rule] of rules.map((line) => line.split(' '))) {
        await mustRun(program, ['-t', table!, verb, ...rule])
      }
    }
  }
  await change('-I')
  try {
    for (const family of FAMILIES) {
      const server = at(SERVER[family], 80)
      using client = new Datagrams(at(CLIENT[family], 0), { on: gateway.y })
      client.send('question', server)
      assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
      using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: gateway.y })
      excluded.send('question', server)
      assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(server)}`)
    }
  } finally {
    await change('-D')
  }
})

test('tproxy of all ports on one interface: answers of flows that began on the other side pass by', async () => {
  const listener = udpListener('tproxy', 'forwarded', { match: { ...MATCH_ANY, interfaces: ['y'] } })
  using sockets = listening(listener)
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) {
    const service = at(CLIENT[family], 5_300)
    using _service = new Datagrams(service, { on: gateway.y }).serve()
    using asking = new Datagrams(at(SERVER[family], 0), { on: gateway.z })
    for (const _ of [1, 2]) {
      asking.send('question', service)
      assert.equal(await asking.next(), `server saw ${text(asking.local)} from ${text(service)}`)
    }
    assert.equal(await sockets[family].next(), 'silence')
  }
})

test('local tproxy of all ports: this host’s servers answer, and what it asks itself is taken', async () => {
  const listener = udpListener('tproxy', 'local', WIDE)
  using sockets = listening(listener)
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) {
    using _service = new Datagrams(at(PROXY[family], 5_300)).serve()
    using asking = new Datagrams(at(CLIENT[family], 0), { on: gateway.y })
    const service = at(PROXY[family], 5_300)
    asking.send('question', service)
    assert.equal(await asking.next(), `server saw ${text(asking.local)} from ${text(service)}`)
    using client = endsOf('local', family).client()
    client.send('mine', at(SERVER[family], 81))
    assert.equal(await sockets[family].next(), `mine from ${text(client.local)}`)
  }
})

test('a listener of what is addressed to this host, of all ports, leaves it the answers to its own questions', async () => {
  const listener = udpListener('tproxy', 'forwarded', { ...WIDE, addressedHere: true })
  using sockets = listening(listener)
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) {
    const server = at(SERVER[family], 80)
    for (const mark of [0, DEFAULT_RULES.bypassMark]) {
      using own = new Datagrams(at(PROXY_TO_Z[family], 0), { mark, to: server })
      own.send('question')
      assert.equal(await own.next(), `server saw ${text(own.local)} from ${text(server)}`)
    }
    using client = new Datagrams(at(CLIENT[family], 0), { on: gateway.y })
    client.send('here', at(PROXY[family], 7_000))
    assert.equal(await sockets[family].next(), `here from ${text(client.local)}`)
  }
})

test('of two local listeners, each gets the datagrams of its own, although only the sender told them apart', async () => {
  const uid = process.getuid!()
  const others = udpListener('tproxy', 'local', {
    ...{ name: 'others', match: { ...MATCH_ANY, fwmarks: [{ value: 7, mask: 0xff }] } },
    listen: [at('127.0.0.1', 50_081), at('::1', 50_081)],
  })
  const own = udpListener('tproxy', 'local', { match: { ...MATCH_ANY, uids: [{ from: uid, to: uid }] } })
  using sockets = listening(own) // at the other's port nobody listens
  await using _rules = await installChains(others, own)
  for (const family of FAMILIES) {
    using client = endsOf('local', family).client()
    client.send('mine', at(SERVER[family], 80))
    assert.equal(await sockets[family].next(), `mine from ${text(client.local)}`)
  }
})

test('a port that is unreachable is told to the socket that sent with the client’s address', async () => {
  const listener = udpListener('tproxy', 'forwarded', { source: 'client' })
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) {
    using upstream = upstreamSocket(at(CLIENT[family], 0), at(SERVER[family], 9))
    upstream.send('anybody?')
    assert.equal(await upstream.next(), 'ECONNREFUSED')
  }
})

test('a listener that others can send to is not sent to: the port is unreachable', async () => {
  for (const mode of ['redirect', 'tproxy'] as const) {
    const here = FAMILIES.map((family) => at(PROXY[family], 50_080))
    const listener = udpListener(mode, 'forwarded', mode === 'tproxy' ? { listen: here } : {})
    using sockets = listening(listener)
    await using _rules = await installChains(listener)
    for (const family of FAMILIES) {
      using client = new Datagrams(at(CLIENT[family], 0), { on: gateway.y, to: at(PROXY[family], 50_080) })
      client.send('hello')
      assert.equal(await client.next(), 'ECONNREFUSED')
      assert.equal(await sockets[family].next(), 'silence')
    }
  }
})

for (const path of PATHS) {
  for (const mode of MODES) {
    test(`${mode} on the path ${path}, closed: what the rules took is dropped when they are gone`, async () => {
      const listener = udpListener(mode, path, { onDown: 'closed' })
      await using _rules = await installChains(listener)
      await removeMain()
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(path, family)
        using client = open()
        client.send('question', server)
        assert.equal(await client.next(), 'silence')
        client.send('by', at(server.address, 81))
        assert.match(await client.next(), /^server saw/)
      }
    })
  }
}

test('closed, of all ports: with the rules gone, what is excluded has its answers, and so have this host’s servers', async () => {
  const closed = { ...WIDE, onDown: 'closed', exclude: NOT_EXCLUDED } as const
  const listeners = [udpListener('tproxy', 'forwarded', closed), udpListener('redirect', 'local', { ...closed })]
  await using _rules = await installChains(...listeners)
  const answered = FAMILIES.map((family) => {
    const client = endsOf('forwarded', family).client()
    using reply = replySocket(at(SERVER[family], 80))
    reply.send('our answer begins the flow anew', client.local)
    return client
  })
  await removeMain()
  for (const [i, family] of FAMILIES.entries()) {
    const server = at(SERVER[family], 80)
    using taken = answered[i]!
    assert.match(await taken.next(), /^our answer/)
    taken.send('still there?', server)
    assert.equal(await taken.next(), 'silence')
    using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: gateway.y })
    excluded.send('question', server)
    assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(server)}`)
    const service = at(PROXY[family], 5_300)
    using _service = new Datagrams(service).serve()
    excluded.send('question', service)
    assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(service)}`)
    for (const path of ['forwarded', 'local'] as const) {
      using client = endsOf(path, family).client()
      client.send('question', server)
      assert.equal(await client.next(), 'silence')
    }
  }
})

async function removeMain(): Promise<void> {
  for (const { program, name } of await listOurChains()) {
    if (!name.endsWith('guard')) await removeChains(program, name)
  }
}

test('with one port, UDP is intercepted where conntrack sees nothing', async () => {
  const change = async (verb: '-A' | '-D') => {
    for (const program of ['iptables', 'ip6tables']) {
      for (const chain of ['PREROUTING', 'OUTPUT'])
        await mustRun(program, ['-t', 'raw', verb, chain, '-j', 'CT', '--notrack'])
    }
  }
  await change('-A')
  try {
    for (const path of PATHS) {
      const listener = udpListener('tproxy', path)
      using sockets = listening(listener)
      await using _rules = await installChains(listener)
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(path, family)
        using client = open()
        client.send('question', server)
        assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
      }
    }
  } finally {
    await change('-D')
  }
})
