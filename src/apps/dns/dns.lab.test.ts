import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../../lab/limpid-process.ts'
import { enterNamespaces } from '../../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../../lab/topology.ts'
import { receiveAll, serve, sleep } from '../../lab/traffic.fixture.ts'
import type { Family } from '../../net/address.ts'
import { dig, WITHOUT_DIG } from './dig.fixture.ts'
import { DnsServer, zoneOf } from './server.fixture.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const options = { skip: WITHOUT_DIG }
/** What servers have for names: told apart by the server. */
const ANSWER = { 4: '192.0.2.1', 6: '2001:db8::1' } as const
const ANOTHER = { 4: '192.0.2.2', 6: '2001:db8::2' } as const
const Y = { 4: '10.0.3.1', 6: 'fd00:3::1' } as const
const NEIGHBOUR = { 4: '10.0.3.7', 6: 'fd00:3::7' } as const
const OTHER_SOURCE = { 4: '10.0.3.77', 6: 'fd00:3::77' } as const

/** Servers on Z, each behind a listener with other settings; those from 20 on stand on Z only where a test says so. */
const z = (family: Family, n: number) => (family === 4 ? `10.0.4.${n}` : `fd00:4::${n}`)
/** Addresses that nobody has, and that only listeners with upstreams answer for. */
const nobody = (family: Family, n: number) => (family === 4 ? `203.0.113.${n}` : `2001:db8::${n}`)
const [PLAIN, KEPT, KEPT_TOO, SAME_PORT, HIDDEN, OTHER, RULED] = [2, 3, 4, 5, 6, 7, 8]
const [UPSTREAM, NO_PORT, SILENT] = [20, 21, 22]
const [EVERYWHERE, AFTER_NO_PORT, AFTER_SILENT, AFTER_NO_ROUTE, SAME_PORT_TO_ONE] = [9, 10, 11, 12, 13]

const RULES = [
  '{ names: let.ads.example, then: forward }',
  '{ suffixes: ads.example, types: [A, AAAA], then: nxdomain }',
  '{ names: me.example, then: answer, answers: { a: [10.1.2.3, 10.1.2.4], aaaa: "fd00::3", txt: hello there, ttl: 90s } }',
  '{ names: www.me.example, then: answer, answers: { cname: me.example, a: 10.1.2.3 } }',
  '{ names: own.example, then: answer, answers: { a: 10.0.4.2, aaaa: "fd00:4::2" } }',
  '{ suffixes: refused.example, then: refuse }',
  '{ types: PTR, then: refuse }',
  '{ names: silent.example, then: drop }',
  `{ suffixes: internal.example, types: A, then: forward, to: ["${z(4, UPSTREAM)}", "${z(6, UPSTREAM)}"] }`,
]

let lab: Topology
let limpid: LimpidProcess

const list = (values: readonly string[]) => `[${values.map((value) => `"${value}"`).join(', ')}]`

/** A listener for what is sent to these addresses, of one family or both. */
function listener(name: string, destinations: readonly string[], source: string, dns: string, family = 'both'): string {
  const match = destinations.length === 0 ? '' : `destinations: ${list(destinations)}, `
  const what = `name: ${name}, protocols: [udp, tcp], ports: 53, family: ${family}`
  return `{ ${what}, ${match}source: "${source}", dns: ${dns} }`
}

function listeners(): string[] {
  const both = (of: (family: Family, n: number) => string, ...n: number[]) =>
    FAMILIES.flatMap((family) => n.map((one) => of(family, one)))
  const upstreams = (...n: number[]) => `upstreams: ${list(both(z, ...n))}`
  const unroutable = { 4: '198.51.100.1', 6: 'fd00:dead::1' } as const
  return [
    listener('plain', both(z, PLAIN), 'client', '{ cache: off }'),
    listener('kept', both(z, KEPT, KEPT_TOO), 'client', '{}'),
    listener('same-port', both(z, SAME_PORT), 'client-port', '{}'),
    listener('hidden', both(z, HIDDEN), 'proxy', '{}'),
    ...FAMILIES.map((f) => listener(`other-${f}`, [z(f, OTHER)], OTHER_SOURCE[f], '{}', `${f}`)),
    listener('ruled', both(z, RULED), 'client', `{ rules: [${RULES.join(', ')}] }`),
    listener('everywhere', both(nobody, EVERYWHERE, 99), 'proxy', `{ ${upstreams(UPSTREAM)} }`),
    listener('no-port', both(nobody, AFTER_NO_PORT), 'client', `{ ${upstreams(NO_PORT, UPSTREAM)} }`),
    listener('silent', both(nobody, AFTER_SILENT), 'client', `{ ${upstreams(SILENT, UPSTREAM)} }`),
    ...FAMILIES.map((f) =>
      listener(
        `no-route-${f}`,
        [nobody(f, AFTER_NO_ROUTE)],
        'proxy',
        `{ upstreams: ${list([unroutable[f], z(f, UPSTREAM)])} }`,
        `${f}`,
      ),
    ),
    listener('one', both(nobody, SAME_PORT_TO_ONE, 98), 'client-port', `{ ${upstreams(UPSTREAM)}, cache: off }`),
    ...FAMILIES.map((f) => {
      const at = f === 4 ? `${ADDRESSES[4].xy}:53` : `[${ADDRESSES[6].xy}]:53`
      return `{ name: asked-${f}, intercept: none, protocols: [udp, tcp], listen: "${at}", family: ${f}, dns: { upstreams: "${z(f, UPSTREAM)}" } }`
    }),
    `{ name: own, paths: local, protocols: [udp, tcp], ports: 53, destinations: ${list(both(z, UPSTREAM))}, dns: {} }`,
    '{ name: web, ports: 80, source: client }',
  ]
}

before(async () => {
  if (WITHOUT_DIG) return
  lab = await raiseTopology()
  const more = [NEIGHBOUR[4], NEIGHBOUR[6]].map((address) =>
    // of two addresses the kernel would take this one for what says nothing
    address.includes(':') ? `${address}/64 dev y-x nodad preferred_lft 0` : `${address}/24 dev y-x`,
  )
  await lab.y.run('ip', ['-batch', '-'], { input: more.map((line) => `address add ${line}`).join('\n') })
  const numbers = [KEPT, KEPT_TOO, SAME_PORT, HIDDEN, OTHER, RULED, UPSTREAM, NO_PORT, SILENT]
  const addresses = numbers.flatMap((n) => [`${z(4, n)}/24 dev z-x`, `${z(6, n)}/64 dev z-x nodad preferred_lft 0`])
  await lab.z.run('ip', ['-batch', '-'], { input: addresses.map((line) => `address add ${line}`).join('\n') })
  writeFileSync(
    '/run/dns.yaml',
    `listeners:\n${listeners()
      .map((line) => `  - ${line}\n`)
      .join('')}`,
  ) // /run is the lab's own
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', '/run/dns.yaml'])
})

after(async () => {
  if (WITHOUT_DIG) return
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal((await lab.x.run('ss', ['-Htuan'])).replaceAll(/^.*TIME-WAIT.*\n/gm, ''), '', 'no socket is left')
  await lab.close()
})

const stand = (family: Family, n: number, answer: Readonly<Record<Family, string>> = ANSWER) =>
  DnsServer.open(lab.z, z(family, n), zoneOf(answer[4], answer[6]))

const PROTOCOLS = ['udp', 'tcp'] as const
const by = (protocol: (typeof PROTOCOLS)[number]) => (protocol === 'tcp' ? '+tcp' : '+notcp')

for (const family of FAMILIES) {
  const is4 = family === 4
  const type = is4 ? 'A' : 'AAAA'
  const the = `IPv${family}:`

  test(
    `${the} by UDP and TCP the answer is the server’s, and comes from it; the server sees the client`,
    options,
    async () => {
      await using server = await stand(family, PLAIN)
      for (const protocol of PROTOCOLS) {
        for (const [asked, data] of [
          ['A', ANSWER[4]],
          ['AAAA', ANSWER[6]],
          ['TXT', '"from the server"'],
        ] as const) {
          const dug = await dig(lab.y, `@${z(family, PLAIN)}`, 'web.example', asked, by(protocol))
          assert.deepEqual([dug.status, dug.flags, dug.data], ['NOERROR', 'qr aa rd', [data]], dug.text)
          assert.deepEqual([dug.server, dug.protocol], [`${z(family, PLAIN)}#53`, protocol])
          const heard = server.take().map(({ name, protocol: how, from }) => [name, how, from.address])
          assert.deepEqual(heard, [['web.example', protocol, Y[family]]])
        }
        assert.equal((await dig(lab.y, `@${z(family, PLAIN)}`, 'nobody.example', by(protocol))).status, 'NXDOMAIN')
        server.take()
      }
    },
  )

  test(`${the} EDNS goes to the server as it is: payload size, DO, or none`, options, async () => {
    await using server = await stand(family, PLAIN)
    for (const protocol of PROTOCOLS) {
      for (const [args, edns] of [
        [['+bufsize=1400', '+dnssec'], { udpBytes: 1400, dnssecOk: true }],
        [['+bufsize=4096'], { udpBytes: 4096, dnssecOk: false }],
        [['+noedns'], undefined],
      ] as const) {
        const dug = await dig(lab.y, `@${z(family, PLAIN)}`, 'web.example', by(protocol), ...args)
        assert.equal(dug.status, 'NOERROR', dug.text)
        assert.deepEqual(
          server.take().map((query) => query.edns),
          [edns],
        )
        assert.equal(dug.udpBytes, edns && 1232)
      }
    }
  })

  test(
    `${the} what does not fit is truncated, and dig asks again by TCP; 3.5 kB come in fragments where EDNS allows`,
    options,
    async () => {
      await using server = await stand(family, PLAIN)
      for (const args of [['+noedns'], ['+bufsize=1232']]) {
        const dug = await dig(lab.y, `@${z(family, PLAIN)}`, 'big.example', 'TXT', ...args)
        assert.match(dug.text, /Truncated, retrying in TCP/)
        assert.deepEqual([dug.protocol, dug.data.length], ['tcp', 16])
        assert.deepEqual(
          server.take().map(({ protocol }) => protocol),
          ['udp', 'tcp'],
        )
      }
      const truncated = await dig(lab.y, `@${z(family, PLAIN)}`, 'big.example', 'TXT', '+ignore')
      assert.deepEqual([truncated.protocol, truncated.data, truncated.flags], ['udp', [], 'qr aa tc rd'])
      const whole = await dig(lab.y, `@${z(family, PLAIN)}`, 'big.example', 'TXT', '+bufsize=4096')
      assert.deepEqual(
        [whole.protocol, whole.data.length, whole.server],
        ['udp', 16, `${z(family, PLAIN)}#53`],
        whole.text,
      )
      assert.ok(whole.bytes > 3_400, `${whole.bytes} bytes`)
    },
  )

  test(`${the} an answer is kept for its TTL, for those alone who ask the same server`, options, async () => {
    await using server = await stand(family, KEPT)
    await using other = await stand(family, KEPT_TOO, ANOTHER)
    const first = await dig(lab.y, `@${z(family, KEPT)}`, 'web.example', type)
    assert.deepEqual([first.answers[0]?.ttl, server.take().length], [300, 1])
    await sleep(2_100)
    for (const protocol of PROTOCOLS) {
      const second = await dig(lab.y, `@${z(family, KEPT)}`, 'WEB.example', type, by(protocol))
      assert.deepEqual([second.data, second.server], [[ANSWER[family]], `${z(family, KEPT)}#53`], second.text)
      const { ttl } = second.answers[0]!
      assert.ok(ttl < 299 && ttl > 100, `TTL ${ttl}`)
      assert.match(second.text, /^;WEB\.example\./m, 'the question is spelt as it was asked')
    }
    const neighbour = await dig(lab.y, '-b', NEIGHBOUR[family], `@${z(family, KEPT)}`, 'web.example', type)
    assert.deepEqual([neighbour.data, server.take()], [[ANSWER[family]], []], 'one answer for all who ask this server')
    const theirs = await dig(lab.y, `@${z(family, KEPT_TOO)}`, 'web.example', type)
    assert.deepEqual([theirs.data, other.take().length], [[ANOTHER[family]], 1])
    for (let i = 0; i < 2; i++)
      assert.equal((await dig(lab.y, `@${z(family, KEPT)}`, 'nobody.example')).status, 'NXDOMAIN')
    assert.equal(server.take().length, 1, 'that there is nothing is kept too')
  })

  test(
    `${the} with client-port the server sees the port too, and an answer is kept for its client alone`,
    options,
    async () => {
      await using server = await stand(family, SAME_PORT)
      for (const [i, client] of [Y[family], NEIGHBOUR[family]].entries()) {
        const ask = (port: number) =>
          dig(lab.y, '-b', `${client}#${port}`, `@${z(family, SAME_PORT)}`, 'web.example', type)
        for (const port of [7_000 + i, 7_010 + i]) assert.deepEqual((await ask(port)).data, [ANSWER[family]])
        assert.deepEqual(
          server.take().map(({ from }) => from),
          [{ address: client, port: 7_000 + i }],
        )
      }
    },
  )

  test(`${the} with client-port one port may ask two addresses that have the same upstream`, options, async () => {
    await using server = await stand(family, UPSTREAM)
    for (const n of [SAME_PORT_TO_ONE, 98, SAME_PORT_TO_ONE]) {
      const dug = await dig(lab.y, '-b', `${Y[family]}#7100`, `@${nobody(family, n)}`, 'web.example', type)
      assert.deepEqual([dug.data, dug.server], [[ANSWER[family]], `${nobody(family, n)}#53`], dug.text)
    }
    assert.equal(server.take().length, 3)
  })

  test(`${the} with the source proxy the server sees X, with another address that one`, options, async () => {
    for (const [n, seen] of [
      [HIDDEN, ADDRESSES[family].xz],
      [OTHER, OTHER_SOURCE[family]],
    ] as const) {
      await using server = await stand(family, n)
      for (const protocol of PROTOCOLS) {
        assert.deepEqual((await dig(lab.y, `@${z(family, n)}`, `${protocol}.example`, type, by(protocol))).data, [
          ANSWER[family],
        ])
        assert.deepEqual(
          server.take().map(({ from }) => from.address),
          [seen],
        )
      }
    }
  })

  test(`${the} with upstreams every address answers, also one that nobody has`, options, async () => {
    await using server = await stand(family, UPSTREAM)
    for (const n of [EVERYWHERE, 99]) {
      for (const protocol of PROTOCOLS) {
        const dug = await dig(lab.y, `@${nobody(family, n)}`, `${protocol}.example`, type, by(protocol))
        assert.deepEqual([dug.data, dug.server], [[ANSWER[family]], `${nobody(family, n)}#53`], dug.text)
      }
    }
    assert.equal(server.take().length, 2, 'it is one server: its answers are for all who ask')
  })

  test(
    `${the} where the first upstream is silent, has no port open, or no route, the next one answers`,
    options,
    async () => {
      await using server = await stand(family, UPSTREAM)
      await using silent = await DnsServer.open(lab.z, z(family, SILENT), () => undefined)
      for (const n of [AFTER_NO_PORT, AFTER_NO_ROUTE, AFTER_SILENT]) {
        const dug = await dig(lab.y, `@${nobody(family, n)}`, 'web.example', type)
        assert.deepEqual([dug.data, dug.server], [[ANSWER[family]], `${nobody(family, n)}#53`], dug.text)
        const next = await dig(lab.y, `@${nobody(family, n)}`, 'next.example', type, '+tries=1')
        assert.deepEqual(next.data, [ANSWER[family]], `from then on at once: ${next.text}`)
        if (n === AFTER_SILENT) continue
        const byTcp = await dig(lab.y, `@${nobody(family, n)}`, 'tcp.example', type, '+tcp', '+tries=1')
        assert.deepEqual(byTcp.data, [ANSWER[family]], byTcp.text)
      }
      assert.equal(silent.take().length, 1)
      assert.equal(server.take().length, 8)
    },
  )

  test(
    `${the} what this host’s own programs ask is taken, and what is asked of the listener itself`,
    options,
    async () => {
      await using server = await stand(family, UPSTREAM)
      for (const [host, asked] of [
        [lab.x, z(family, UPSTREAM)],
        [lab.y, ADDRESSES[family].xy],
      ] as const) {
        for (const protocol of [...PROTOCOLS, ...PROTOCOLS]) {
          const dug = await dig(host, `@${asked}`, `${protocol}.own.example`, type, by(protocol))
          assert.deepEqual([dug.data, dug.server], [[ANSWER[family]], `${asked}#53`], dug.text)
        }
        assert.deepEqual(
          server.take().map(({ from }) => from.address),
          [ADDRESSES[family].xz, ADDRESSES[family].xz],
        )
      }
    },
  )
}

test('rules answer, deny, refuse, drop and forward by name, suffix and type, by UDP and TCP', options, async () => {
  const at = `@${z(4, RULED)}`
  await using server = await stand(4, RULED)
  await using other = await stand(4, UPSTREAM, ANOTHER)
  const expected: readonly (readonly [name: string, type: string, status: string, data: string[]])[] = [
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
    ['one.internal.example', 'A', 'NOERROR', [ANOTHER[4]]],
    ['one.internal.example', 'TXT', 'NOERROR', ['"from the server"']],
  ]
  for (const protocol of PROTOCOLS) {
    for (const [name, type, status, data] of expected) {
      const dug = await dig(lab.y, at, name, type, by(protocol))
      assert.deepEqual([dug.status, dug.data, dug.server], [status, data, `${z(4, RULED)}#53`], dug.text)
    }
    const silent = await dig(lab.y, at, 'silent.example', by(protocol), '+time=1', '+tries=1')
    assert.equal(silent.status, undefined)
  }
  assert.equal((await dig(lab.y, at, 'me.example', 'A')).answers[0]?.ttl, 90)
  const names = (heard: DnsServer) => heard.take().map(({ name }) => name)
  const asked = ['let.ads.example', 'x.ads.example', 'notads.example', 'one.internal.example']
  assert.deepEqual(names(server), asked, 'once, for both protocols; the others not at all')
  assert.deepEqual(names(other), ['one.internal.example'])
  assert.equal((await limpid.stats()).apps.ruled?.['dns-rule'], 2)
})

test('the name that a client was told is in the record of the flow that it opens then', options, async () => {
  const zone = zoneOf(ADDRESSES[4].z, ADDRESSES[6].z)
  await using _plain = await DnsServer.open(lab.z, z(4, PLAIN), zone)
  await using _kept = await DnsServer.open(lab.z, z(6, KEPT), zone)
  const endpoint = (family: Family) => ({ address: ADDRESSES[family].z, port: 80 })
  await using _web4 = await serve(lab.z, endpoint(4), (socket) => socket.end('hello'))
  await using _web6 = await serve(lab.z, endpoint(6), (socket) => socket.end('hello'))
  const named = async (family: Family, from: string): Promise<string | undefined> => {
    limpid.skipRecords()
    await receiveAll(lab.y.connect(endpoint(family), { from: { address: from, port: 0 }, allowHalfOpen: false }))
    for (;;) {
      const record = await limpid.nextRecord()
      if (record.listener === 'web') return record.name
    }
  }
  const told = (client: string, server: string, name: string, ...more: string[]) =>
    dig(lab.y, '-b', client, `@${server}`, name, ...more)
  assert.equal(await named(4, Y[4]), undefined)
  await told(Y[4], z(4, PLAIN), 'Alias.example', 'A')
  await told(NEIGHBOUR[4], z(4, PLAIN), 'web.example', 'A')
  assert.equal(await named(4, Y[4]), 'alias.example', 'what was asked for, not what it is an alias of')
  assert.equal(await named(4, NEIGHBOUR[4]), 'web.example', 'each client by its own names')
  await told(Y[4], z(4, RULED), 'own.example', 'A')
  assert.equal(await named(4, Y[4]), 'own.example', 'the last one; also when a rule told it')
  await told(Y[4], z(4, PLAIN), 'Alias.example', 'A')
  assert.equal(await named(4, Y[4]), 'alias.example', 'told again')
  await told(Y[6], z(6, KEPT), 'six.example', 'AAAA', '+tcp')
  assert.equal(await named(6, Y[6]), 'six.example')
  await told(NEIGHBOUR[6], z(6, KEPT), 'six.example', 'AAAA')
  assert.equal(await named(6, NEIGHBOUR[6]), 'six.example', 'also from the cache')
})
