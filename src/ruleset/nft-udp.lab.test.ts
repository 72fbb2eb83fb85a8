import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { MATCH_ANY } from '../config/defaults.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { mustRun } from '../sys/program.ts'
import { CLIENT, FAMILIES, PROXY } from './gateway.fixture.ts'
import { installRules } from './nft-udp.fixture.ts'
import { Datagrams, SILENT_MS } from './udp.fixture.ts'
import {
  at,
  endsOf,
  listening,
  type Networks,
  PATHS,
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
  installRules,
)

test('a listener that others can send to is not sent to: the port is unreachable', async () => {
  for (const mode of ['redirect', 'tproxy', 'mark'] as const) {
    const port = mode === 'mark' ? 80 : 50_080
    const here = FAMILIES.map((family) => at(PROXY[family], port))
    const listener = udpListener(mode, 'forwarded', mode === 'tproxy' ? { listen: here } : {})
    using sockets = listening(listener)
    await using _rules = await installRules(listener)
    for (const family of FAMILIES) {
      using client = new Datagrams(at(CLIENT[family], 0), { on: networks.gateway.y, to: at(PROXY[family], port) })
      client.send('hello')
      assert.equal(await client.next(), 'ECONNREFUSED')
      assert.equal(await sockets[family].next(SILENT_MS), 'silence')
    }
  }
})

test('where conntrack sees nothing, datagrams are taken and pass by all the same', async () => {
  const untracked = `table inet untracked {
    chain received { type filter hook prerouting priority raw; notrack; }
    chain sent { type filter hook output priority raw; notrack; }
  }`
  await mustRun('nft', ['-f', '-'], { input: untracked.replaceAll('; ', ';\n').replaceAll(' }', '\n}') })
  try {
    for (const path of PATHS) {
      const listener = udpListener('tproxy', path, {
        ...WIDE,
        exclude: { ...MATCH_ANY, ports: [{ from: 81, to: 81 }] },
      })
      using sockets = listening(listener)
      await using _rules = await installRules(listener)
      for (const family of FAMILIES) {
        const { client: open, server } = endsOf(networks, path, family)
        using client = open()
        client.send('question', server)
        assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
        client.send('by', at(server.address, 81))
        assert.match(await client.next(), /^server saw/)
      }
    }
  } finally {
    await mustRun('nft', ['delete', 'table', 'inet', 'untracked'])
  }
})
