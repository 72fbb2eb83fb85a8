import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listener, problemsOf } from './parse.fixture.ts'
import { parseConfig } from './parse.ts'
import { fileSchema } from './schema.ts'

const read = (...lines: string[]) => parseConfig(listener(...lines), 'f').listeners[0]!

test('an empty map takes port 53 by UDP and TCP, forwards to the server asked, and keeps answers', () => {
  const { dns, match, protocols } = read('dns: {}')
  assert.deepEqual(dns, {
    upstreams: [],
    cache: { entries: 100_000, bytes: 67_108_864, maxTtlMs: 86_400_000 },
    rules: [],
  })
  assert.deepEqual([match.ports, protocols], [[{ from: 53, to: 53 }], ['udp', 'tcp']])
  const other = read('dns: {}', 'ports: 5353', 'protocols: udp')
  assert.deepEqual([other.match.ports, other.protocols], [[{ from: 5353, to: 5353 }], ['udp']])
  assert.equal(read().dns, undefined)
  assert.equal(read('dns: { cache: off }').dns?.cache, undefined)
})

test('every key of dns is read', () => {
  const { dns, families } = read(
    'source: client',
    'dns:',
    '  upstreams: [10.0.4.2, "10.0.4.3:5353", "127.0.0.1"]',
    '  cache: { entries: 10, bytes: 8192, maxTtl: 1h }',
    '  rules:',
    '    - name: local',
    '      names: [WWW.Example.org., a_b.example]',
    '      suffixes: example.net',
    '      types: [A, aaaa, TYPE65, HTTPS]',
    '      then: answer',
    '      answers: { a: 192.0.2.1, aaaa: ["2001:DB8::1"], cname: c.example, txt: [v=1, 17], ttl: 90s }',
    '    - { then: forward, to: 10.0.4.9 }',
  )
  assert.deepEqual(families, [4])
  assert.deepEqual(dns, {
    upstreams: [
      { address: '10.0.4.2', port: 53 },
      { address: '10.0.4.3', port: 5353 },
      { address: '127.0.0.1', port: 53 },
    ],
    cache: { entries: 10, bytes: 8192, maxTtlMs: 3_600_000 },
    rules: [
      {
        name: 'local',
        names: ['www.example.org', 'a_b.example'],
        suffixes: ['example.net'],
        types: [1, 28, 65, 65],
        decision: 'answer',
        answers: { a: ['192.0.2.1'], aaaa: ['2001:db8::1'], cname: 'c.example', txt: ['v=1', '17'], ttlSeconds: 90 },
        to: [],
      },
      {
        name: 'rule-2',
        names: [],
        suffixes: [],
        types: [],
        decision: 'forward',
        answers: undefined,
        to: [{ address: '10.0.4.9', port: 53 }],
      },
    ],
  })
})

test('upstreams are enough for a listener that has no original destination', () => {
  assert.equal(read('intercept: none', 'listen: 5300', 'dns: { upstreams: 10.0.4.2 }').dns?.upstreams.length, 1)
  assert.equal(read('addressedHere: true', 'dns: { upstreams: 10.0.4.2 }').addressedHere, true)
})

const SERVER = 'the address of a DNS server, with a port such as 10.0.4.2:5353 or without for port 53'
const BAD: [what: string, lines: string[], problems: string[]][] = [
  [
    'no server for intercept none',
    ['intercept: none', 'listen: 53', 'dns: {}'],
    ['2:5: expected "to": with intercept none there is no original destination to dial'],
  ],
  [
    'a word for a map',
    ['dns: on'],
    ['3:10: expected a map with upstreams, cache or rules; {} forwards all to the server that was asked, found "on"'],
  ],
  [
    'an unknown key',
    ['dns: { upstream: 10.0.4.2 }'],
    ['3:12: expected a known key, found "upstream"; did you mean "upstreams"?'],
  ],
  ['a server by its name', ['dns: { upstreams: dns.example }'], [`3:23: expected ${SERVER}, found "dns.example"`]],
  [
    'a multicast server',
    ['dns: { upstreams: [10.0.4.2, 224.0.0.251] }'],
    [`3:34: expected ${SERVER}, found "224.0.0.251"`],
  ],
  [
    'a cache that is a number',
    ['dns: { cache: 7 }'],
    ['3:19: expected off, or a map with entries, bytes or maxTtl, found 7'],
  ],
  [
    'an unknown key of the cache',
    ['dns: { cache: { entires: 7 } }'],
    ['3:21: expected a known key, found "entires"; did you mean "entries"?'],
  ],
  [
    'a cache without bytes',
    ['dns: { cache: { bytes: 0 } }'],
    ['3:28: expected a number of bytes from 4096 to 8589934592, found 0'],
  ],
  ['a TTL of nothing', ['dns: { cache: { maxTtl: off } }'], ['3:29: expected at least 1s; "cache: off" keeps nothing']],
  [
    'both ways to say where queries go',
    ['to: 10.0.4.3:53', 'dns: { upstreams: 10.0.4.2 }'],
    ['3:5: "to" and "upstreams" of dns both say where queries go'],
  ],
  [
    'clients without a server',
    ['source: client', 'family: both', 'dns: { rules: [{ then: forward, to: 10.0.4.2 }] }'],
    ['5:41: expected an IPv6 server too: IPv6 clients cannot be served by another with this source'],
  ],
  [
    'a source of the other family',
    ['source: 10.0.0.9', 'dns: { rules: [{ then: forward, to: "fd00::1" }] }'],
    ['4:41: expected an IPv4 server: the source is an IPv4 address'],
  ],
  [
    'a rule without a decision',
    ['dns: { rules: [{ names: a.b }] }'],
    ['3:20: expected "then", forward, answer, nxdomain, refuse or drop, found nothing'],
  ],
  [
    'an unknown decision',
    ['dns: { rules: [{ then: nxdomian }] }'],
    ['3:28: expected forward, answer, nxdomain, refuse or drop, found "nxdomian"; did you mean "nxdomain"?'],
  ],
  [
    'an unknown key of a rule',
    ['dns: { rules: [{ then: drop, sufixes: a }] }'],
    ['3:34: expected a known key, found "sufixes"; did you mean "suffixes"?'],
  ],
  [
    'a wildcard',
    ['dns: { rules: [{ then: drop, suffixes: ["*.a.example"] }] }'],
    [
      '3:45: expected a domain name such as www.example.org, found "*.a.example": a suffix stands for the names below it without "*."',
    ],
  ],
  [
    'an unknown type',
    ['dns: { rules: [{ then: drop, types: AAA }] }'],
    [
      '3:41: expected a record type such as A, AAAA or HTTPS, or by number such as TYPE65, found "AAA"; did you mean "AAAA"?',
    ],
  ],
  [
    'an answer without records',
    ['dns: { rules: [{ then: answer, answers: { ttl: 5s } }, { then: answer }] }'],
    [
      '3:45: expected "answers": with a, aaaa, cname or txt, for then answer',
      '3:60: expected "answers": with a, aaaa, cname or txt, for then answer',
    ],
  ],
  [
    'records and servers where they mean nothing',
    ['dns: { rules: [{ then: drop, to: 10.0.4.2, answers: { a: 192.0.2.1 } }] }'],
    ['3:34: "to" has no meaning with then drop', '3:48: "answers" has no meaning with then drop'],
  ],
  [
    'an address of the wrong family',
    ['dns: { rules: [{ then: answer, answers: { aaaa: 192.0.2.1 } }] }'],
    ['3:53: expected an IPv6 address, found "192.0.2.1"'],
  ],
]

for (const [what, lines, problems] of BAD) {
  test(`${what} is refused with its place`, () => assert.deepEqual(problemsOf(listener(...lines)).toSorted(), problems))
}

test('the JSON Schema describes every key of dns', () => {
  const undescribed: string[] = []
  const walk = (schema: unknown, path: string): void => {
    if (typeof schema !== 'object' || schema === null) return
    const { properties, items, anyOf } = schema as Record<'properties' | 'items' | 'anyOf', unknown>
    for (const [key, value] of Object.entries(properties ?? {})) {
      if (!('description' in value)) undescribed.push(`${path}.${key}`)
      walk(value, `${path}.${key}`)
    }
    for (const part of [items, ...(Array.isArray(anyOf) ? anyOf : [])]) walk(part, path)
  }
  const { properties } = fileSchema() as { properties: { listeners: { items: { properties: { dns: unknown } } } } }
  walk(properties.listeners.items.properties.dns, 'dns')
  assert.deepEqual(undescribed, [])
})
