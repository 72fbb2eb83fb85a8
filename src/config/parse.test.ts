import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { LimpidError } from '../errors.ts'
import { DEFAULT_LIMITS, DEFAULT_RULES, DEFAULT_TIMEOUTS, DEFAULT_WORKERS, MATCH_ANY } from './defaults.ts'
import { listener, problemsOf } from './parse.fixture.ts'
import { parseConfig } from './parse.ts'
import { NO_POLICY } from './policy.ts'
import { ConfigError } from './problem.ts'

const FORWARDER = ['intercept: none', 'listen: 8080', 'to: 10.0.4.2:80']

test('a listener with a name only takes all ports of both families, and goes on as the proxy', () => {
  const config = parseConfig(listener(), 'f')
  assert.deepEqual(config, {
    listeners: [
      {
        name: 'web',
        intercept: 'tproxy',
        paths: ['forwarded'],
        listen: [
          { address: '127.0.0.1', port: 50_080 },
          { address: '::1', port: 50_080 },
        ],
        families: [4, 6],
        protocols: ['tcp'],
        match: MATCH_ANY,
        exclude: MATCH_ANY,
        addressedHere: false,
        source: 'proxy',
        to: undefined,
        onDown: 'open',
        fastOpen: false,
        acceptProxyProtocol: undefined,
        timeouts: DEFAULT_TIMEOUTS,
        dns: undefined,
      },
    ],
    forwards: [],
    bypass: [],
    workers: DEFAULT_WORKERS,
    policy: NO_POLICY,
    ioUring: true,
    limits: DEFAULT_LIMITS,
    rules: DEFAULT_RULES,
  })
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.listeners[0]?.match.ports))
})

test('every key is read', () => {
  const text = `
listeners:
  - name: web
    intercept: tproxy
    paths: [local, local]
    protocols: [udp, tcp, udp]
    listen: ["127.0.0.1:10080", "[::1]:10080"]
    family: both
    interfaces: [eth0, ppp*]
    sources: 10.0.3.0/24
    destinations: [fd00::/8, 192.0.2.7]
    ports: [80, "8000-8100"]
    uids: [0, 1000-1999]
    cgroups: [/system.slice/nginx.service/, user.slice]
    fwmarks: [7, 0x100/0xff00]
    exclude: { sources: 10.0.3.9, ports: 8080, uids: 33, cgroups: a/b, fwmarks: 0xA }
    addressedHere: true
    source: proxy
    to: z.example:8080
    onDown: closed
    fastOpen: true
    acceptProxyProtocol: { from: 10.0.3.9 }
    timeouts: { connect: 3s, idle: off, halfClose: 500ms, deadPeer: 1m, session: 3m, query: 4s }
forwards:
  - name: dns
    protocols: [udp, tcp, udp]
    interfaces: eth0
    sources: 10.0.3.0/24
    destinations: 192.0.2.1
    ports: [53, 5300-5309]
    fwmarks: 1/1
    exclude: { interfaces: eth1, sources: 10.0.3.9 }
    to: 10.0.4.2:53
    source: proxy
    health: 1s
limits: { flows: 1000, flowsPerClient: 10, sessions: 2000, sessionsPerClient: 20, backlog: 128 }
rules: { backend: iptables, nftTable: limpid-2, routeTable: 20000, rulePriority: 100, markMask: 0x30000, interceptMark: 0x10000, bypassMark: 0x20000 }
`
  const config = parseConfig(text, 'f')
  assert.deepEqual(config.listeners[0], {
    name: 'web',
    intercept: 'tproxy',
    paths: ['local'],
    protocols: ['udp', 'tcp'],
    listen: [
      { address: '127.0.0.1', port: 10_080 },
      { address: '::1', port: 10_080 },
    ],
    families: [4, 6],
    match: {
      interfaces: ['eth0', 'ppp*'],
      sources: [{ family: 4, address: '10.0.3.0', length: 24 }],
      destinations: [
        { family: 6, address: 'fd00::', length: 8 },
        { family: 4, address: '192.0.2.7', length: 32 },
      ],
      ports: [
        { from: 80, to: 80 },
        { from: 8000, to: 8100 },
      ],
      uids: [
        { from: 0, to: 0 },
        { from: 1000, to: 1999 },
      ],
      cgroups: ['system.slice/nginx.service', 'user.slice'],
      fwmarks: [
        { value: 7, mask: 0xffff_ffff },
        { value: 0x100, mask: 0xff00 },
      ],
    },
    exclude: {
      interfaces: [],
      sources: [{ family: 4, address: '10.0.3.9', length: 32 }],
      destinations: [],
      ports: [{ from: 8080, to: 8080 }],
      uids: [{ from: 33, to: 33 }],
      cgroups: ['a/b'],
      fwmarks: [{ value: 10, mask: 0xffff_ffff }],
    },
    addressedHere: true,
    source: 'proxy',
    to: { host: 'z.example', port: 8080 },
    onDown: 'closed',
    fastOpen: true,
    acceptProxyProtocol: { from: [{ family: 4, address: '10.0.3.9', length: 32 }] },
    timeouts: {
      connectMs: 3_000,
      idleMs: 0,
      halfCloseMs: 500,
      deadPeerMs: 60_000,
      sessionIdleMs: 180_000,
      queryIdleMs: 4_000,
    },
    dns: undefined,
  })
  assert.deepEqual(config.forwards, [
    {
      name: 'dns',
      protocols: ['udp', 'tcp'],
      match: {
        ...MATCH_ANY,
        interfaces: ['eth0'],
        sources: [{ family: 4, address: '10.0.3.0', length: 24 }],
        destinations: [{ family: 4, address: '192.0.2.1', length: 32 }],
        ports: [
          { from: 53, to: 53 },
          { from: 5300, to: 5309 },
        ],
        fwmarks: [{ value: 1, mask: 1 }],
      },
      exclude: {
        ...MATCH_ANY,
        interfaces: ['eth1'],
        sources: [{ family: 4, address: '10.0.3.9', length: 32 }],
      },
      to: { address: '10.0.4.2', port: 53 },
      source: 'proxy',
      healthMs: 1_000,
    },
  ])
  assert.deepEqual(config.limits, {
    flows: 1000,
    flowsPerClient: 10,
    sessions: 2000,
    sessionsPerClient: 20,
    backlog: 128,
  })
  assert.deepEqual(config.rules, {
    install: true,
    backend: 'iptables',
    nftTable: 'limpid-2',
    routeTable: 20_000,
    rulePriority: 100,
    markMask: 0x30000,
    interceptMark: 0x10000,
    bypassMark: 0x20000,
  })
})

test('a bare port listens on loopback for interception, and on every address for a forwarder', () => {
  const config = parseConfig('listeners: [{listen: 1080}, {intercept: none, listen: 2080, to: a}, {}]', 'f')
  assert.deepEqual(
    config.listeners.map(({ listen }) => listen.map(({ address, port }) => `${address} ${port}`)),
    [
      ['127.0.0.1 1080', '::1 1080'],
      ['0.0.0.0 2080', ':: 2080'],
      ['127.0.0.1 50082', '::1 50082'],
    ],
  )
})

test('families follow from what can be dialled: a source address, a client towards a given server', () => {
  const families = (...lines: string[]) => parseConfig(listener(...lines), 'f').listeners[0]?.families
  assert.deepEqual(families('source: 10.0.0.9'), [4])
  assert.deepEqual(families('source: client', 'to: "[fd00::1]:80"'), [6])
  assert.deepEqual(families('source: proxy', 'to: "[fd00::1]:80"'), [4, 6])
  assert.deepEqual(families('listen: "[::1]:50080"'), [6])
  assert.deepEqual(parseConfig(listener(), 'f', { hostFamilies: [4] }).listeners[0]?.families, [4])
})

test('a source that no server can answer to is refused', () => {
  for (const source of ['0.0.0.0', '127.0.0.2', '224.0.0.1', '255.255.255.255', '"::"', '"::1"', 'ff02::1']) {
    assert.match(problemsOf(listener(`source: ${source}`)).join(), /^3:13: .*: no server can answer to that address$/)
  }
})

test('an IPv6 address in "to" stands in brackets, with a port or without', () => {
  const to = (text: string) => parseConfig(listener(`to: "${text}"`), 'f').listeners[0]?.to
  assert.deepEqual(to('[fd00:4::2]:443'), { host: 'fd00:4::2', port: 443 })
  assert.deepEqual(to('[fd00:4::2]'), { host: 'fd00:4::2', port: 0 })
  assert.match(problemsOf(listener('to: "fd00:4::2:443"')).join(), /: an IPv6 address needs brackets/)
})

const PREFIX = 'an address or a prefix without host bits, such as 10.0.3.0/24 or fd00::/8'

const BAD: [what: string, text: string, problems: string[]][] = [
  ['an empty file', '', ['1:1: expected a map with the key listeners or forwards, found nothing']],
  ['a list', '[1]', ['1:1: expected a map with the key listeners or forwards, found a list']],
  ['no listeners', 'listeners: []', ['1:12: expected at least one listener, found an empty list']],
  [
    'an unknown key at the top',
    'listenrs: []\n',
    ['1:1: expected a known key, found "listenrs"; did you mean "listeners"?'],
  ],
  [
    'an unknown key in a listener',
    listener('sorce: client'),
    ['3:5: expected a known key, found "sorce"; did you mean "source"?'],
  ],
  [
    "another tool's word",
    listener('upstream: a:1'),
    ['3:5: expected a known key, found "upstream"; did you mean "to"?'],
  ],
  [
    'an unknown key that resembles nothing',
    listener('timeouts: { banana: 1s }'),
    ['3:17: expected one of connect, idle, halfClose, deadPeer, session, query, found "banana"'],
  ],
  [
    'headers of everybody',
    listener('acceptProxyProtocol: {}'),
    ['3:26: expected "from": whoever may say for whom he comes is believed'],
  ],
  [
    'headers by UDP',
    listener('protocols: udp', 'acceptProxyProtocol: { from: 10.0.0.1 }'),
    ['4:5: "acceptProxyProtocol" has no meaning without tcp'],
  ],
  ['a wrong type', listener('fastOpen: 1'), ['3:15: expected true or false, found 1']],
  ['a list where a map belongs', listener('timeouts: [1s]'), ['3:15: expected a map of timeouts, found a list']],
  [
    'port 70000',
    listener('ports: [80, 70000]'),
    ['3:17: expected a port from 1 to 65535, a range such as 8000-8100, or all, found 70000'],
  ],
  [
    'port 70000 alone',
    listener('ports: 70000'),
    ['3:12: expected a port from 1 to 65535, a range such as 8000-8100, or all, found 70000'],
  ],
  [
    'port 70000 of the target',
    listener('to: z:70000'),
    ['3:9: expected host:port, [address]:port, or a host alone to keep the original port, found "z:70000"'],
  ],
  [
    'host bits',
    listener('sources: 10.0.3.1/24'),
    [`3:14: expected ${PREFIX}, found "10.0.3.1/24"; did you mean "10.0.3.0/24"?`],
  ],
  [
    'a duration without a unit',
    listener('timeouts: { idle: 10 }'),
    ['3:23: expected a duration with its unit, such as 500ms, 10s, 5m or 1h, or off, found 10; did you mean "10s"?'],
  ],
  [
    'a mistyped word',
    listener('intercept: tpoxy'),
    ['3:16: expected tproxy, redirect, dnat, mark or none, found "tpoxy"; did you mean "tproxy"?'],
  ],
  ['a key twice', 'listeners: []\nlisteners: []', ['2:1: key "listeners" is given twice']],
  ['broken YAML', 'listeners:\n  - name: "web', ['2:15: Missing closing "quote']],
  [
    'two documents',
    'a: 1\n---\nb: 1\n',
    ['2:1: Source contains multiple documents; please use YAML.parseAllDocuments()'],
  ],
  [
    'a name twice and an endpoint twice',
    'listeners:\n  - { name: a, listen: 1080 }\n  - { name: a, listen: "127.0.0.1:1080" }\n',
    ['3:13: listener name "a" is used twice', '3:24: 127.0.0.1:1080 is taken by listener "a" already'],
  ],
  [
    'an endpoint that a wildcard address covers',
    'listeners:\n  - { name: a, intercept: none, listen: 1080, to: z:1 }\n  - { listen: "127.0.0.1:1080" }\n',
    ['3:15: 127.0.0.1:1080 is taken by listener "a" already with 0.0.0.0:1080'],
  ],
  [
    'a forwarder without a server',
    listener('intercept: none', 'listen: 80'),
    ['2:5: expected "to": with intercept none there is no original destination to dial'],
  ],
  [
    'a forwarder that should match packets',
    listener(...FORWARDER, 'interfaces: eth0', 'onDown: closed', 'paths: local', 'uids: 0', 'exclude: { fwmarks: 1 }'),
    [
      '6:5: "interfaces" has no meaning with intercept none, which takes no packets',
      '7:5: "onDown" has no meaning with intercept none, which takes no packets',
      '8:5: "paths" has no meaning with intercept none, which takes no packets',
      '9:5: "uids" has no meaning with intercept none, which takes no packets',
      '10:16: "fwmarks" has no meaning with intercept none, which takes no packets',
    ],
  ],
  [
    'what is addressed here without a server',
    listener('addressedHere: true'),
    ['3:20: addressedHere needs "to": without it Limpid would dial itself'],
  ],
  [
    'a source of the other family',
    listener('source: 10.0.0.9', 'to: "[fd00::1]:80"'),
    ['3:13: an IPv4 source cannot dial "to", which is IPv6'],
  ],
  [
    'a family that cannot be served',
    listener('family: both', 'source: 10.0.0.9'),
    ['3:13: IPv6 clients cannot be served: the source is an IPv4 address'],
  ],
  [
    'lo',
    listener('interfaces: lo'),
    [
      '3:17: expected the name of a network interface other than lo, of at most 15 characters, or a pattern such as ppp*, found "lo"',
    ],
  ],
  [
    'closed without rules',
    `${listener('onDown: closed')}\nrules: { install: false }`,
    ['3:13: onDown closed needs the kernel rules, which are switched off'],
  ],
  [
    'marks outside the mask',
    `${listener()}\nrules: { interceptMark: 0x80000000 }`,
    ['3:25: interceptMark 0x80000000 has bits outside markMask 0x30000000'],
  ],
  [
    'equal marks',
    `${listener()}\nrules: { bypassMark: 0x10000000 }`,
    ['3:22: bypassMark and interceptMark are both 0x10000000'],
  ],
  [
    'the main route table',
    `${listener()}\nrules: { routeTable: 254 }`,
    ["3:22: route table 254 is the kernel's own (default, main or local)"],
  ],
  [
    "another's nft table",
    `${listener()}\nrules: { nftTable: filter }`,
    ['3:20: expected an nft table name that begins with limpid, found "filter"'],
  ],
]

for (const [what, text, problems] of BAD) {
  test(`${what} is refused with its place, what was expected and what was found`, () => {
    assert.deepEqual(problemsOf(text), problems)
  })
}

test('all problems of a file are kept, and the error is one line with the first', () => {
  const text = listener('ports: 70000', 'sorce: x', 'fastOpen: maybe')
  assert.throws(
    () => parseConfig(text, '/etc/limpid.yaml'),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError)
      assert.equal(error.problems.length, 3)
      assert.equal(error.exitCode, 78)
      assert.match(
        error.toString(),
        /^LIMPID_CONFIG: \/etc\/limpid\.yaml:3:12: expected a port .* \(and 2 more: `limpid check` shows all\)$/,
      )
      return true
    },
  )
})

test('anchors work, and problems behind an alias are placed where they are written', () => {
  const text =
    'listeners:\n  - &a { name: a, timeouts: &t { idle: 5s }, listen: 1 }\n  - { name: b, timeouts: *t, listen: 2 }\n'
  assert.equal(parseConfig(text, 'f').listeners[1]?.timeouts.idleMs, 5_000)
  assert.deepEqual(problemsOf(text.replaceAll('5s', '5')).length, 2)
})

const BOMBS: [string, string][] = [
  ['nested flow lists', '['.repeat(900_000)],
  ['nested block lists', '- '.repeat(500_000)],
  ['nested explicit keys', '? '.repeat(500_000)],
  [
    'a thousand million laughs',
    ['a0: &a0 x', ...Array.from({ length: 12 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(9)}]`)].join(
      '\n',
    ),
  ],
  ['50,000 keys', Array.from({ length: 50_000 }, (_, i) => `k${i}: 1`).join('\n')],
  ['two megabytes', 'a'.repeat(2_000_000)],
]

for (const [what, text] of BOMBS) {
  test(`${what}: refused in bounded time`, { timeout: 20_000 }, () => {
    assert.notEqual(problemsOf(text).length, 0)
  })
}

test('whatever the text, the outcome is a config or LIMPID_CONFIG', () => {
  const words = [
    'listeners',
    'ports',
    'to',
    ':',
    '-',
    '\n',
    '  ',
    '[',
    ']',
    '{',
    '}',
    '"',
    '&a',
    '*a',
    '80',
    '70000',
    'null',
    '#',
    '|',
    '!!x',
  ]
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...words), { maxLength: 40 }), (parts) => {
      try {
        parseConfig(parts.join(' '), 'f')
      } catch (error) {
        assert.ok(error instanceof LimpidError, String(error))
        assert.equal(error.code, 'LIMPID_CONFIG')
        assert.doesNotMatch(error.toString(), /\n/)
      }
    }),
    { numRuns: 500 },
  )
})
