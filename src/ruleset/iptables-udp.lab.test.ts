import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { mustRun } from '../sys/program.ts'
import { CLIENT, FAMILIES, PROXY, SERVER } from './gateway.fixture.ts'
import { installChains } from './iptables.fixture.ts'
import { Datagrams, replySocket, SILENT_MS, upstreamSocket } from './udp.fixture.ts'
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
import { promiseUdpInterception } from './udp-promises.fixture.ts'

await enterNamespaces()

let networks: Networks
before(async () => {
  networks = await raiseNetworks()
})
after(async () => await networks.close())

promiseUdpInterception(
  (name, work) => void test(name, work),
  () => networks,
  installChains,
)

test('tproxy of all ports: a flow goes on after conntrack has forgotten it and our answer begins it anew', async () => {
  const listener = udpListener('tproxy', 'forwarded', WIDE)
  const local = udpListener('tproxy', 'local', WIDE)
  using sockets = listening(listener)
  await using _rules = await installChains(listener, local)
  for (const path of ['forwarded', 'local'] as const) {
    for (const family of FAMILIES) {
      const { client: open, server } = endsOf(networks, path, family)
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
      using client = new Datagrams(at(CLIENT[family], 0), { on: networks.gateway.y })
      client.send('question', server)
      assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
      using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: networks.gateway.y })
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
    using _service = new Datagrams(service, { on: networks.gateway.y }).serve()
    using asking = new Datagrams(at(SERVER[family], 0), { on: networks.gateway.z })
    await converse(asking, service)
    assert.equal(await sockets[family].next(SILENT_MS), 'silence')
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
    using client = new Datagrams(at(CLIENT[family], 0), { on: networks.gateway.y })
    client.send('here', at(PROXY[family], 7_000))
    assert.equal(await sockets[family].next(), `here from ${text(client.local)}`)
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
      using client = new Datagrams(at(CLIENT[family], 0), { on: networks.gateway.y, to: at(PROXY[family], 50_080) })
      client.send('hello')
      assert.equal(await client.next(), 'ECONNREFUSED')
      assert.equal(await sockets[family].next(SILENT_MS), 'silence')
    }
  }
})

test('closed, of all ports: with the rules gone, what is excluded has its answers, and so have this host’s servers', async () => {
  const closed = { ...WIDE, onDown: 'closed', exclude: NOT_EXCLUDED } as const
  const listeners = [udpListener('tproxy', 'forwarded', closed), udpListener('redirect', 'local', { ...closed })]
  await using rules = await installChains(...listeners)
  const answered = FAMILIES.map((family) => {
    const client = endsOf(networks, 'forwarded', family).client()
    using reply = replySocket(at(SERVER[family], 80))
    reply.send('our answer begins the flow anew', client.local)
    return client
  })
  await rules.removeMain()
  for (const [i, family] of FAMILIES.entries()) {
    const server = at(SERVER[family], 80)
    using taken = answered[i]!
    assert.match(await taken.next(), /^our answer/)
    taken.send('still there?', server)
    assert.equal(await taken.next(SILENT_MS), 'silence')
    using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: networks.gateway.y })
    excluded.send('question', server)
    assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(server)}`)
    const service = at(PROXY[family], 5_300)
    using _service = new Datagrams(service).serve()
    excluded.send('question', service)
    assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(service)}`)
    for (const path of ['forwarded', 'local'] as const) {
      using client = endsOf(networks, path, family).client()
      client.send('question', server)
      assert.equal(await client.next(SILENT_MS), 'silence')
    }
  }
})

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
        const { client: open, server } = endsOf(networks, path, family)
        using client = open()
        client.send('question', server)
        assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
      }
    }
  } finally {
    await change('-D')
  }
})
