import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ForwardConfig, Path, Source } from '../config/types.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { type Family, formatEndpoint } from '../net/address.ts'
import { mustRun } from '../sys/program.ts'
import { openTcp } from '../sys/socket.ts'
import { ask, FAMILIES, type Gateway, raiseGateway, SERVER, SILENT_MS } from './gateway.fixture.ts'
import { asChains, type Bridge, installChains, listenerFor, MODES, raiseBridge, relayFor } from './iptables.fixture.ts'
import { iptablesScripts } from './iptables.ts'
import { listChainsWithCounters, listOurChains, loadChains, removeChains } from './iptables-commands.ts'

await enterNamespaces()

let gateway: Gateway
let bridge: Bridge
before(async () => {
  gateway = await raiseGateway()
  bridge = await raiseBridge()
})
after(async () => {
  await gateway.close()
  await bridge.close()
})

const BRIDGED = { 4: '10.0.9.2', 6: 'fd00:9::2' } as const

/** Who dials whom on a path; `client` and `proxy`: the addresses that the server may see. */
function endsOf(path: Path, family: Family) {
  const net = path === 'bridged' ? 9 : 3
  const six = family === 6
  const client = six ? `[fd00:${net}::1]` : `10.0.${net}.1`
  const near = path === 'bridged' ? (six ? '[fd00:9::101]' : '10.0.9.101') : six ? '[fd00:4::1]' : '10.0.4.1'
  const server = path === 'bridged' ? BRIDGED[family] : SERVER[family]
  const connect = (port: number) => {
    const to = { address: server, port }
    if (path === 'forwarded') return gateway.y.connect(to)
    if (path === 'bridged') return bridge.y.connect(to)
    return new Socket({ fd: openTcp(family), allowHalfOpen: true }).connect({ host: server, port })
  }
  return { server, client: path === 'local' ? near : client, proxy: near, connect }
}

for (const path of ['forwarded', 'local', 'bridged'] as const) {
  for (const mode of MODES) {
    // the client's own socket holds its port on the path local
    const sources: Source[] = path === 'local' ? ['proxy', 'client'] : ['proxy', 'client', 'client-port']
    for (const source of sources) {
      test(`${mode} on the path ${path}, source ${String(source)}: right destination, right source`, async () => {
        const listener = listenerFor(mode, path, { source })
        await using _relay = relayFor(listener)
        await using _rules = await installChains(listener)
        for (const family of FAMILIES) {
          const { server, client, proxy, connect } = endsOf(path, family)
          const destination = formatEndpoint({ address: server, port: 80 })
          const dialled = connect(80)
          const answer = ask(dialled)
          const seen = source === 'proxy' ? proxy : client
          const port = source === 'client-port' ? await localPort(dialled) : undefined
          const text = await answer
          assert.ok(text.startsWith(`to ${destination}: server saw ${seen}:${port ?? ''}`), text)
          const other = await ask(connect(81))
          assert.match(other, /^server saw/)
        }
      })
    }
  }
}

async function localPort(socket: Socket): Promise<number> {
  if (socket.connecting) await new Promise((resolve) => socket.once('connect', resolve))
  return socket.localPort!
}

test('frames are taken on one port of a bridge alone, and the answers come up from the other', async () => {
  const match = { ...MATCH_ANY, interfaces: ['b-y'], ports: [{ from: 80, to: 80 }] }
  const listener = listenerFor('tproxy', 'bridged', { match, source: 'client' })
  await using _relay = relayFor(listener)
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) assert.match(await ask(endsOf('bridged', family).connect(80)), /^to .*server saw/)
  const servers = ['0.0.0.0', '::'].map((address) => bridge.y.listen({ address, port: 8_443 }))
  for (const server of servers) server.on('connection', (socket) => socket.end('from Y itself'))
  for (const address of ['10.0.9.1', 'fd00:9::1']) {
    assert.equal(await ask(bridge.z.connect({ address, port: 8_443 })), 'from Y itself')
  }
  for (const server of servers) server.close()
})

test('a redirect listener with a range of ports gets connections on more than one of them', async () => {
  const listen = [0, 1, 2, 3].flatMap((i) => ['0.0.0.0', '::'].map((address) => ({ address, port: 50_080 + i })))
  const listener = listenerFor('redirect', 'forwarded', { listen })
  await using _relay = relayFor(listener)
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) {
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(endsOf('forwarded', family).connect(80))))
    for (const answer of answers) assert.match(answer, /^to .*:80: server saw/)
  }
})

test('a listener that others can dial is not dialled: it answers with a reset', async () => {
  const listener = listenerFor('redirect', 'forwarded')
  await using _relay = relayFor(listener)
  await using _rules = await installChains(listener)
  for (const address of ['10.0.3.101', 'fd00:3::101']) {
    assert.equal(await ask(gateway.y.connect({ address, port: 50_080 })), 'ECONNREFUSED')
  }
})

for (const path of ['forwarded', 'local', 'bridged'] as const) {
  for (const mode of MODES) {
    test(`${mode} on the path ${path}, closed: what the rules took is dropped when they are gone`, async () => {
      const listener = listenerFor(mode, path, { onDown: 'closed' })
      await using _rules = await installChains(listener)
      {
        await using _relay = relayFor(listener)
        for (const family of FAMILIES) assert.match(await ask(endsOf(path, family).connect(80)), /^to .*server saw/)
      }
      for (const { program, name } of await listOurChains())
        if (!name.endsWith('guard')) await removeChains(program, name)
      const silent = FAMILIES.map((family) => ask(endsOf(path, family).connect(80), SILENT_MS))
      for (const family of FAMILIES) assert.match(await ask(endsOf(path, family).connect(81)), /^server saw/)
      assert.deepEqual(await Promise.all(silent), ['silence', 'silence'])
    })
  }
}

for (const mode of ['tproxy', 'mark'] as const) {
  for (const path of ['forwarded', 'bridged'] as const) {
    test(`${mode} on the path ${path} works for packets that conntrack does not see`, async () => {
      await using _untracked = await untracked()
      const listener = listenerFor(mode, path, { source: 'client-port' })
      await using _relay = relayFor(listener)
      await using _rules = await installChains(listener)
      for (const family of FAMILIES) assert.match(await ask(endsOf(path, family).connect(80)), /^to .*server saw/)
    })
  }
}

async function untracked(): Promise<AsyncDisposable> {
  const change = async (verb: '-A' | '-D') => {
    for (const program of ['iptables', 'ip6tables']) {
      for (const chain of ['PREROUTING', 'OUTPUT'])
        await mustRun(program, ['-t', 'raw', verb, chain, '-j', 'CT', '--notrack'])
    }
  }
  await change('-A')
  return { [Symbol.asyncDispose]: () => change('-D') }
}

for (const path of ['forwarded', 'local'] as const) {
  test(`flows on the path ${path} that are older than the rules go on`, async () => {
    const ports = [{ from: 80, to: 82 }]
    const servers = ['0.0.0.0', '::'].map((address) => gateway.z.listen({ address, port: 82 }))
    for (const server of servers) server.on('connection', (socket) => socket.pipe(socket))
    const older = FAMILIES.map((family) => endsOf(path, family).connect(82))
    await Promise.all(older.map((socket) => once(socket, 'connect')))
    const listener = listenerFor('tproxy', path, { match: { ...MATCH_ANY, ports } })
    await using _relay = relayFor(listener)
    await using _rules = await installChains(listener)
    for (const socket of older) {
      socket.end('still here')
      assert.equal(await ask(socket), 'still here')
    }
    for (const server of servers) server.close()
  })
}

test('of what this host sends, the own dials of a local listener are not taken: 500 connections at once', async () => {
  const listener = listenerFor('tproxy', 'local')
  await using _relay = relayFor(listener)
  await using _rules = await installChains(listener)
  const answers = await Promise.all(Array.from({ length: 500 }, () => ask(endsOf('local', 4).connect(80), 10_000)))
  assert.deepEqual(
    new Set(answers.map((answer) => answer.replace(/:\d+$/, ''))),
    new Set(['to 10.0.4.2:80: server saw 10.0.4.1']),
  )
})

test('of two local listeners, each gets the connections of its own, although only the sender told them apart', async () => {
  const uid = process.getuid!()
  const others = listenerFor('tproxy', 'local', {
    ...{ name: 'others', match: { ...MATCH_ANY, fwmarks: [{ value: 7, mask: 0xff }] } },
    ...{ listen: [{ address: '127.0.0.1', port: 50_081 }], families: [4] },
  })
  const own = listenerFor('tproxy', 'local', {
    ...{ name: 'own', match: { ...MATCH_ANY, uids: [{ from: uid, to: uid }] }, families: [4] },
    listen: [{ address: '127.0.0.1', port: 50_080 }],
  })
  await using _relay = relayFor(own) // at the other's port nobody listens
  await using _rules = await installChains(others, own)
  assert.match(await ask(endsOf('local', 4).connect(80)), /^to .*server saw/)
})

test('an ICMP error about a dial from the client’s address comes to the dial, not to the client', async () => {
  const listener = listenerFor('tproxy', 'forwarded', {
    ...{ source: 'client', match: { ...MATCH_ANY, ports: [{ from: 82, to: 82 }] } },
  })
  await using _relay = relayFor(listener)
  await using _rules = await installChains(listener)
  for (const family of FAMILIES) {
    const program = family === 4 ? 'iptables' : 'ip6tables'
    await gateway.z.run(program, ['-A', 'INPUT', '-p', 'tcp', '--dport', '82', '-j', 'REJECT'])
    // an error that arrives within connect() counts when the SYN is sent again, a second later (tcp_v6_err)
    const answer = await ask(endsOf('forwarded', family).connect(82))
    assert.match(answer, /cannot dial: ECONNREFUSED$/)
  }
})

test('a forward brings connections to another host, and counts them', async () => {
  const forward: ForwardConfig = {
    ...{ name: 'web', protocols: ['tcp'], match: { ...MATCH_ANY, ports: [{ from: 8_080, to: 8_080 }] } },
    ...{ exclude: MATCH_ANY, source: 'client', healthMs: 0, to: { address: SERVER[4], port: 80 } },
  }
  for (const [source, seen] of [
    ['client', '10.0.3.1'],
    ['proxy', '10.0.4.1'],
  ] as const) {
    const input = {
      rules: DEFAULT_RULES,
      interceptions: [],
      bypass: [],
      divert: [],
      forwards: [{ ...forward, source }],
    }
    for (const script of iptablesScripts(input).map(asChains)) await loadChains(script)
    const answer = await ask(gateway.y.connect({ address: '10.0.3.101', port: 8_080 }))
    assert.ok(answer.startsWith(`server saw ${seen}:`), answer)
    const counted = await listChainsWithCounters('iptables-restore', 'limpid')
    for (const way of ['up', 'down']) assert.match(counted, new RegExp(`^\\[[1-9].*"forward web ${way}"`, 'm'))
    await removeChains('iptables-restore', 'limpid')
  }
})
