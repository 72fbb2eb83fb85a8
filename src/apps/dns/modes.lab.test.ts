import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { parseConfig } from '../../config/parse.ts'
import { LimpidProcess } from '../../lab/limpid-process.ts'
import { enterNamespaces } from '../../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../../lab/topology.ts'
import { enterNetNamespace, openNetNamespace } from '../../sys/namespace.ts'
import { createProxy } from '../create-proxy.ts'
import { dig, WITHOUT_DIG } from './dig.fixture.ts'
import { DnsServer, zoneOf } from './server.fixture.ts'

await enterNamespaces()

const options = { skip: WITHOUT_DIG }
const SERVERS = [
  { address: ADDRESSES[4].z, answer: '192.0.2.1' },
  { address: '10.0.4.3', answer: '192.0.2.2' },
] as const

let lab: Topology

before(async () => {
  if (WITHOUT_DIG) return
  lab = await raiseTopology()
  await lab.z.run('ip', ['address', 'add', '10.0.4.3/24', 'dev', 'z-x'])
  await lab.y.run('ip', ['address', 'add', '10.0.3.7/24', 'dev', 'y-x'])
})

after(() => lab?.close())

for (const intercept of ['tproxy', 'mark', 'redirect', 'dnat'] as const) {
  test(
    `${intercept}: answers are kept for each server by itself, also where the kernel rewrites who was asked`,
    options,
    async () => {
      const [one, other] = SERVERS.map(({ address, answer }) =>
        DnsServer.open(lab.z, address, zoneOf(answer, '2001:db8::1')),
      )
      await using first = await one!
      await using second = await other!
      const what = { name: 'dns', protocols: ['udp', 'tcp'], ports: 53, source: 'client', family: 4, dns: {} }
      const listen = intercept === 'dnat' ? { listen: `${ADDRESSES[4].xy}:50053` } : {}
      writeFileSync('/run/modes.yaml', JSON.stringify({ listeners: [{ ...what, intercept, ...listen }] }))
      const limpid = await LimpidProcess.start(lab.x, ['run', '-c', '/run/modes.yaml'])
      try {
        for (const flag of ['+notcp', '+notcp', '+tcp']) {
          for (const { address, answer } of SERVERS) {
            const dug = await dig(lab.y, `@${address}`, 'web.example', 'A', flag)
            assert.deepEqual([dug.data, dug.server], [[answer], `${address}#53`], `${dug.text}${limpid.stderr}`)
          }
        }
        assert.deepEqual([first.take().length, second.take().length], [1, 1])
        assert.equal((await limpid.stats()).apps.dns?.cacheHits, 4)
      } finally {
        assert.equal(await limpid.stop(), 0, limpid.stderr)
      }
    },
  )
}

test('proxy.namesOf() tells which names led a client to an address', options, async () => {
  await using _server = await DnsServer.open(lab.z, ADDRESSES[4].z, zoneOf('10.0.4.2', 'fd00:4::2'))
  const home = openNetNamespace()
  enterNetNamespace(lab.x.namespaceFd) // a proxy opens its sockets where it happens to be
  try {
    const dns = `{ upstreams: ${ADDRESSES[4].z}, rules: [{ names: own.example, then: answer, answers: { a: 10.0.4.2 } }] }`
    const listener = `{ intercept: none, protocols: [udp, tcp], listen: "${ADDRESSES[4].xy}:53", family: 4, dns: ${dns} }`
    await using proxy = createProxy(parseConfig(`listeners: [${listener}]`, 'test'))
    await proxy.listen()
    const names = ['a.example', 'b.example', 'alias.example', 'own.example', 'a.example']
    for (const name of names) await dig(lab.y, '-b', '10.0.3.1', `@${ADDRESSES[4].xy}`, name, 'A')
    await dig(lab.y, '-b', '10.0.3.7', `@${ADDRESSES[4].xy}`, 'c.example', 'A', '+tcp')
    assert.deepEqual(proxy.namesOf('10.0.3.1', '10.0.4.2'), ['a.example', 'own.example', 'alias.example', 'b.example'])
    assert.deepEqual(proxy.namesOf('10.0.3.7', '10.0.4.2'), ['c.example'])
    assert.deepEqual(proxy.namesOf('10.0.3.1', '10.0.4.3'), [])
  } finally {
    enterNetNamespace(home)
  }
})
