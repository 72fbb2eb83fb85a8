import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { parseConfig } from '../../config/parse.ts'
import { LimpidProcess } from '../../lab/limpid-process.ts'
import { enterNamespaces } from '../../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../../lab/topology.ts'
import { receiveAll, serve, sleep } from '../../lab/traffic.fixture.ts'
import type { Family } from '../../net/address.ts'
import { enterNetNamespace, openNetNamespace } from '../../sys/namespace.ts'
import { createProxy } from '../create-proxy.ts'
import { dig, WITHOUT_DIG } from './dig.fixture.ts'
import { DnsServer, zoneOf } from './server.fixture.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const OTHER_SERVER = { 4: '10.0.4.3', 6: 'fd00:4::3' } as const
/** Nobody has it: a bank of documentation addresses. */
const NOWHERE = { 4: '203.0.113.9', 6: '2001:db8::9' } as const
const ANSWER = { 4: '192.0.2.1', 6: '2001:db8::1' } as const
const options = { skip: WITHOUT_DIG }

let lab: Topology

before(async () => {
  lab = await raiseTopology()
  const { y, z } = lab
  await y.run('ip', ['-batch', '-'], {
    input: 'address add 10.0.3.7/24 dev y-x\naddress add fd00:3::7/64 dev y-x nodad',
  })
  await z.run('ip', ['-batch', '-'], {
    input: FAMILIES.map((f) => `address add ${OTHER_SERVER[f]}/${f === 4 ? '24 dev z-x' : '64 dev z-x nodad'}`).join(
      '\n',
    ),
  })
})

after(() => lab.close())

/** In YAML. */
const listed = (...addresses: string[]) => `[${addresses.map((address) => `"${address}"`).join(', ')}]`
const answers = () => zoneOf(ANSWER[4], ANSWER[6])

interface Running extends AsyncDisposable {
  readonly limpid: LimpidProcess
}

/** `limpid run -c` on X, with DNS by UDP and TCP. `dns`: YAML; `listener` goes over what is said here. */
async function running(dns: string, listener: object = {}, others: readonly object[] = []): Promise<Running> {
  const file = '/run/dns.yaml' // the lab's own
  const base = { name: 'dns', protocols: ['udp', 'tcp'], ports: 53, source: 'client', ...listener }
  const lines = [
    `${JSON.stringify(base).slice(0, -1)}, "dns": ${dns} }`,
    ...others.map((other) => JSON.stringify(other)),
  ]
  writeFileSync(file, ['listeners:', ...lines.map((line) => `  - ${line}`), ''].join('\n'))
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  return {
    limpid,
    [Symbol.asyncDispose]: async () => {
      assert.equal(await limpid.stop(), 0, limpid.stderr)
      assert.equal((await lab.x.run('ss', ['-Huan'])).trim(), '', 'no socket is left')
    },
  }
}

for (const family of FAMILIES) {
  const server = ADDRESSES[family].z
  const at = `@${server}`

  test(
    `IPv${family}: by UDP and TCP the answer is the server’s, and comes from it; the server sees the client`,
    options,
    async () => {
      await using stand = await DnsServer.open(lab.z, server, answers())
      await using _ = await running('{ cache: off }')
      for (const [type, data] of [
        ['A', ANSWER[4]],
        ['AAAA', ANSWER[6]],
        ['TXT', '"from the server"'],
      ] as const) {
        for (const [protocol, flag] of [
          ['udp', '+notcp'],
          ['tcp', '+tcp'],
        ] as const) {
          const dug = await dig(lab.y, at, 'web.example', type, flag)
          assert.deepEqual([dug.status, dug.flags, dug.data], ['NOERROR', 'qr aa rd', [data]], dug.text)
          assert.deepEqual([dug.server, dug.protocol], [`${server}#53`, protocol])
          const heard = stand.take()
          assert.deepEqual(
            heard.map(({ name, protocol: by, from }) => [name, by, from.address]),
            [['web.example', protocol, ADDRESSES[family].y]],
          )
        }
      }
      const dug = await dig(lab.y, at, 'nobody.example')
      assert.equal(dug.status, 'NXDOMAIN')
    },
  )

  test(`IPv${family}: EDNS goes to the server as it is: payload size, DO, or none`, options, async () => {
    await using stand = await DnsServer.open(lab.z, server, answers())
    await using _ = await running('{}')
    for (const flag of ['+notcp', '+tcp']) {
      for (const [args, edns] of [
        [['+bufsize=1400', '+dnssec'], { udpBytes: 1400, dnssecOk: true }],
        [['+bufsize=4096'], { udpBytes: 4096, dnssecOk: false }],
        [['+noedns'], undefined],
      ] as const) {
        const dug = await dig(lab.y, at, `${flag.slice(1)}${edns?.udpBytes}.example`, flag, ...args)
        assert.equal(dug.status, 'NOERROR', dug.text)
        assert.deepEqual(
          stand.take().map((query) => query.edns),
          [edns],
        )
        assert.equal(dug.udpBytes, edns && 1232)
      }
    }
  })

  test(
    `IPv${family}: what does not fit is truncated, and dig asks again by TCP; 3.5 kB come in fragments where EDNS allows`,
    options,
    async () => {
      await using stand = await DnsServer.open(lab.z, server, answers())
      await using _ = await running('{ cache: off }')
      for (const args of [['+noedns'], ['+bufsize=1232']]) {
        const dug = await dig(lab.y, at, 'big.example', 'TXT', ...args)
        assert.match(dug.text, /Truncated, retrying in TCP/)
        assert.deepEqual([dug.protocol, dug.data.length], ['tcp', 16])
        assert.deepEqual(
          stand.take().map(({ protocol }) => protocol),
          ['udp', 'tcp'],
        )
        const truncated = await dig(lab.y, at, 'big.example', 'TXT', '+ignore', ...args)
        assert.deepEqual([truncated.protocol, truncated.data.length], ['udp', 0])
        assert.match(truncated.flags, /\btc\b/)
        stand.take()
      }
      const dug = await dig(lab.y, at, 'big.example', 'TXT', '+bufsize=4096')
      assert.deepEqual([dug.protocol, dug.data.length, dug.server], ['udp', 16, `${server}#53`], dug.text)
      assert.ok(dug.bytes > 3_500, `${dug.bytes} bytes`)
    },
  )

  test(`IPv${family}: an answer is kept for its TTL, for those alone who ask the same server`, options, async () => {
    await using stand = await DnsServer.open(lab.z, server, answers())
    await using other = await DnsServer.open(lab.z, OTHER_SERVER[family], zoneOf('192.0.2.2', '2001:db8::2'))
    await using on = await running('{}')
    const first = await dig(lab.y, at, 'web.example', 'A')
    assert.deepEqual([first.answers[0]?.ttl, stand.take().length], [300, 1])
    await sleep(2_100)
    for (const flag of ['+notcp', '+tcp']) {
      const second = await dig(lab.y, at, 'WEB.example', 'A', flag)
      assert.deepEqual([second.data, second.server], [[ANSWER[4]], `${server}#53`], second.text)
      const { ttl } = second.answers[0]!
      assert.ok(ttl < 300 && ttl > 200, `TTL ${ttl}`)
      assert.match(second.text, /^;WEB\.example\./m, 'the question is spelt as it was asked')
    }
    assert.deepEqual(stand.take(), [])
    const theirs = await dig(lab.y, `@${OTHER_SERVER[family]}`, 'web.example', 'A')
    assert.deepEqual([theirs.data, other.take().length], [['192.0.2.2'], 1])
    const neighbour = await dig(lab.y, '-b', family === 4 ? '10.0.3.7' : 'fd00:3::7', at, 'web.example', 'A')
    assert.deepEqual([neighbour.data, stand.take().length], [[ANSWER[4]], 0])
    for (let i = 0; i < 2; i++) assert.equal((await dig(lab.y, at, 'nobody.example')).status, 'NXDOMAIN')
    assert.equal(stand.take().length, 1, 'that there is nothing is kept too')
    const { apps } = await on.limpid.stats()
    assert.equal(apps.dns?.cacheHits, 4)
  })

  test(
    `IPv${family}: with client-port the server sees the port, and an answer is kept for its client alone`,
    options,
    async () => {
      await using stand = await DnsServer.open(lab.z, server, answers())
      await using _ = await running('{}', { source: 'client-port' })
      const clients = [ADDRESSES[family].y, family === 4 ? '10.0.3.7' : 'fd00:3::7']
      for (const [i, client] of clients.entries()) {
        const ask = (port: number) => dig(lab.y, '-b', `${client}#${port}`, at, 'web.example', 'A')
        assert.deepEqual((await ask(7_000 + i)).data, [ANSWER[4]])
        assert.deepEqual((await ask(7_010 + i)).data, [ANSWER[4]])
        assert.deepEqual(
          stand.take().map(({ from }) => from),
          [{ address: client, port: 7_000 + i }],
        )
      }
    },
  )

  test(`IPv${family}: with the source proxy the server sees X, with another address that one`, options, async () => {
    await using stand = await DnsServer.open(lab.z, server, answers())
    const theirs = family === 4 ? '10.0.3.77' : 'fd00:3::77'
    for (const [source, seen] of [
      ['proxy', ADDRESSES[family].xz],
      [theirs, theirs],
    ] as const) {
      await using _ = await running('{ cache: off }', { source, family })
      for (const flag of ['+notcp', '+tcp']) {
        assert.deepEqual((await dig(lab.y, at, 'web.example', 'A', flag)).data, [ANSWER[4]])
        assert.deepEqual(
          stand.take().map(({ from }) => from.address),
          [seen],
        )
      }
    }
  })

  test(`IPv${family}: with upstreams every address answers, also one that nobody has`, options, async () => {
    await using stand = await DnsServer.open(lab.z, server, answers())
    await using _ = await running(`{ upstreams: ${listed(server)} }`, { source: 'proxy' })
    for (const asked of [NOWHERE[family], OTHER_SERVER[family], '203.0.113.10'].slice(0, family === 4 ? 3 : 2)) {
      for (const flag of ['+notcp', '+tcp']) {
        const dug = await dig(lab.y, `@${asked}`, `${flag.slice(1)}.example`, 'A', flag)
        assert.deepEqual([dug.data, dug.server], [[ANSWER[4]], `${asked}#53`], dug.text)
      }
    }
    assert.equal(stand.take().length, 2, 'it is one server: its answers are for all that ask')
  })

  test(
    `IPv${family}: when the first upstream is silent, or its port is unreachable, the next one answers`,
    options,
    async () => {
      const first = OTHER_SERVER[family]
      await using stand = await DnsServer.open(lab.z, server, answers())
      for (const how of ['refuses', 'is silent'] as const) {
        await using silent = how === 'is silent' ? await DnsServer.open(lab.z, first, () => undefined) : undefined
        await using _ = await running(`{ upstreams: ${listed(first, server)}, cache: off }`)
        const dug = await dig(lab.y, `@${NOWHERE[family]}`, 'web.example', 'A')
        assert.deepEqual([dug.data, dug.server], [[ANSWER[4]], `${NOWHERE[family]}#53`], `${how}: ${dug.text}`)
        const again = await dig(lab.y, `@${NOWHERE[family]}`, 'again.example', 'A', '+tries=1')
        assert.deepEqual(again.data, [ANSWER[4]], `${how}: from then on at once`)
        assert.equal(silent?.take().length, silent && 1)
        assert.equal(stand.take().length, 2)
        if (how === 'refuses') {
          await using _fresh = await running(`{ upstreams: ${listed(first, server)}, cache: off }`)
          const byTcp = await dig(lab.y, `@${NOWHERE[family]}`, 'web.example', 'A', '+tcp', '+tries=1')
          assert.deepEqual(byTcp.data, [ANSWER[4]], byTcp.text)
          stand.take()
        }
      }
    },
  )

  test(
    `IPv${family}: what this host’s own programs ask, and what is asked of the listener itself`,
    options,
    async () => {
      await using stand = await DnsServer.open(lab.z, server, answers())
      for (const [listener, asked, host] of [
        [{ paths: ['local'] }, server, lab.x],
        [
          { intercept: 'none', ports: undefined, listen: listenAt(family), to: toText(family) },
          ADDRESSES[family].xy,
          lab.y,
        ],
      ] as const) {
        await using _ = await running('{ rules: [{ names: mine.example, then: answer, answers: { a: 10.1.2.3 } }] }', {
          ...listener,
          source: 'proxy',
          family,
        })
        for (const flag of ['+notcp', '+tcp']) {
          const dug = await dig(host, `@${asked}`, `${flag.slice(1)}.example`, 'A', flag)
          assert.deepEqual([dug.data, dug.server], [[ANSWER[4]], `${asked}#53`], dug.text)
          assert.deepEqual((await dig(host, `@${asked}`, 'mine.example', flag)).data, ['10.1.2.3'])
        }
        assert.deepEqual(
          stand.take().map(({ from }) => from.address),
          [ADDRESSES[family].xz, ADDRESSES[family].xz],
        )
      }
    },
  )
}

const listenAt = (family: Family) => (family === 4 ? `${ADDRESSES[4].xy}:53` : `[${ADDRESSES[6].xy}]:53`)
const toText = (family: Family) => (family === 4 ? `${ADDRESSES[4].z}:53` : `[${ADDRESSES[6].z}]:53`)

const RULES = [
  '{ names: let.ads.example, then: forward }',
  '{ suffixes: ads.example, types: [A, AAAA], then: nxdomain }',
  '{ names: me.example, then: answer, answers: { a: [10.1.2.3, 10.1.2.4], aaaa: "fd00::3", txt: hello there, ttl: 90s } }',
  '{ names: www.me.example, then: answer, answers: { cname: me.example, a: 10.1.2.3 } }',
  '{ suffixes: refused.example, then: refuse }',
  '{ types: PTR, then: refuse }',
  '{ names: silent.example, then: drop }',
  `{ suffixes: internal.example, then: forward, to: ${OTHER_SERVER[4]} }`,
]

test('rules answer, deny, refuse, drop and forward by name, suffix and type, by UDP and TCP', options, async () => {
  await using stand = await DnsServer.open(lab.z, ADDRESSES[4].z, answers())
  await using other = await DnsServer.open(lab.z, OTHER_SERVER[4], zoneOf('192.0.2.2', '2001:db8::2'))
  await using on = await running(`{ rules: [${RULES.join(', ')}] }`, { family: 4 })
  const expected: readonly (readonly [name: string, type: string, status: string | undefined, data: string[]])[] = [
    ['let.ads.example', 'A', 'NOERROR', [ANSWER[4]]],
    ['ads.example', 'A', 'NXDOMAIN', []],
    ['deep.in.ADS.example', 'AAAA', 'NXDOMAIN', []],
    ['x.ads.example', 'TXT', 'NOERROR', ['"from the server"']],
    ['notads.example', 'A', 'NOERROR', [ANSWER[4]]],
    ['me.example', 'A', 'NOERROR', ['10.1.2.3', '10.1.2.4']],
    ['me.example', 'AAAA', 'NOERROR', ['fd00::3']],
    ['me.example', 'TXT', 'NOERROR', ['"hello there"']],
    ['me.example', 'MX', 'NOERROR', []],
    ['www.me.example', 'A', 'NOERROR', ['me.example.', '10.1.2.3']],
    ['www.me.example', 'CNAME', 'NOERROR', ['me.example.']],
    ['refused.example', 'A', 'REFUSED', []],
    ['other.example', 'PTR', 'REFUSED', []],
    ['one.internal.example', 'A', 'NOERROR', ['192.0.2.2']],
  ]
  for (const flag of ['+notcp', '+tcp']) {
    for (const [name, type, status, data] of expected) {
      const dug = await dig(lab.y, `@${ADDRESSES[4].z}`, name, type, flag)
      assert.deepEqual([dug.status, dug.data], [status, data], `${name} ${type} ${flag}: ${dug.text}`)
      assert.equal(dug.server, `${ADDRESSES[4].z}#53`)
    }
    const silent = await dig(lab.y, `@${ADDRESSES[4].z}`, 'silent.example', flag, '+time=1', '+tries=1')
    assert.equal(silent.status, undefined)
  }
  assert.deepEqual((await dig(lab.y, `@${ADDRESSES[4].z}`, 'me.example', 'A')).answers[0]?.ttl, 90)
  const names = (server: DnsServer) => server.take().map(({ name }) => name)
  assert.deepEqual(names(stand), ['let.ads.example', 'x.ads.example', 'notads.example'], 'the rest was not asked')
  assert.deepEqual(names(other), ['one.internal.example'])
  assert.equal((await on.limpid.stats()).apps.dns?.['dns-rule'], 2)
})

test('the name that a client was told is in the record of the flow that it opens then', options, async () => {
  await using _stand = await DnsServer.open(lab.z, ADDRESSES[4].z, zoneOf(ADDRESSES[4].z, ADDRESSES[6].z))
  await using _web = await serve(lab.z, { address: ADDRESSES[4].z, port: 80 }, (socket) => socket.end('hello'))
  await using _web6 = await serve(lab.z, { address: ADDRESSES[6].z, port: 80 }, (socket) => socket.end('hello'))
  await using on = await running('{}', {}, [{ name: 'web', ports: 80, source: 'client' }])
  const flow = async (family: Family, from: string) => {
    const to = { address: ADDRESSES[family].z, port: 80 }
    await receiveAll(lab.y.connect(to, { from: { address: from, port: 0 }, allowHalfOpen: false }))
    for (;;) {
      const record = await on.limpid.nextRecord()
      if (record.listener === 'web') return record
    }
  }
  assert.equal((await flow(4, '10.0.3.1')).name, undefined)
  await dig(lab.y, '-b', '10.0.3.1', `@${ADDRESSES[4].z}`, 'Alias.example', 'A')
  await dig(lab.y, '-b', '10.0.3.1', `@${ADDRESSES[4].z}`, 'six.example', 'AAAA', '+tcp')
  await dig(lab.y, '-b', '10.0.3.7', `@${ADDRESSES[4].z}`, 'web.example', 'A')
  assert.equal((await flow(4, '10.0.3.1')).name, 'alias.example', 'what was asked for, not what it is an alias of')
  assert.equal((await flow(4, '10.0.3.7')).name, 'web.example', 'each client by its own name')
  await dig(lab.y, '-b', '10.0.3.1', `@${ADDRESSES[4].z}`, 'web.example', 'A')
  assert.equal((await flow(4, '10.0.3.1')).name, 'web.example', 'the last one; from the cache, too')
  await dig(lab.y, '-b', 'fd00:3::1', `@${ADDRESSES[6].z}`, 'six.example', 'AAAA', '+tcp')
  assert.equal((await flow(6, 'fd00:3::1')).name, 'six.example')
})

test('proxy.namesOf() tells which names led a client to an address', options, async () => {
  await using _stand = await DnsServer.open(lab.z, ADDRESSES[4].z, zoneOf('10.0.4.2', 'fd00:4::2'))
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
    assert.deepEqual(proxy.namesOf('10.0.3.1', '10.0.4.2'), ['own.example', 'alias.example', 'b.example', 'a.example'])
    assert.deepEqual(proxy.namesOf('10.0.3.7', '10.0.4.2'), ['c.example'])
    assert.deepEqual(proxy.namesOf('10.0.3.1', '10.0.4.3'), [])
  } finally {
    enterNetNamespace(home)
  }
})
