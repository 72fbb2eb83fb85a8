import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { outcomeOf } from './fuzz.fixture.ts'
import type { Probed } from './probe.ts'
import { CAPTURED, SOCKS4, subject } from './socks.fixture.ts'
import { probeSocks, probeSocks5Request } from './socks.ts'

const fromHex = (hex: string): Uint8Array => Buffer.from(hex, 'hex')

test('SOCKS4 says where it goes by address, SOCKS4A by name', () => {
  assert.deepEqual(probeSocks(SOCKS4), {
    kind: 'match',
    finding: {
      ...{ protocol: 'socks', version: 4, command: 'connect', port: 80, user: 'me' },
      ...{ host: undefined, address: '203.0.113.7' },
    },
  })
  assert.deepEqual(probeSocks(CAPTURED.socks4a), {
    kind: 'match',
    finding: {
      ...{ protocol: 'socks', version: 4, command: 'connect', port: 80, user: '' },
      ...{ host: 'www.example.org', address: undefined },
    },
  })
})

test('SOCKS5 greets, and says where it goes when it has been answered', () => {
  const greeting = { kind: 'match', finding: { protocol: 'socks', version: 5, methods: [0, 1], length: 4 } }
  assert.deepEqual(probeSocks(CAPTURED.greeting), greeting)
  assert.deepEqual(probeSocks(Buffer.concat([CAPTURED.greeting, CAPTURED.request])), greeting)
  const request = (hex: string): Probed<object> => probeSocks5Request(fromHex(hex))
  assert.deepEqual(probeSocks5Request(CAPTURED.request), {
    kind: 'match',
    finding: { command: 'connect', host: 'www.example.org', address: undefined, port: 80 },
  })
  assert.deepEqual(request('05030001c00002010035'), {
    kind: 'match',
    finding: { command: 'associate', host: undefined, address: '192.0.2.1', port: 53 },
  })
  assert.deepEqual(request('0502000420010db800000000000000000000000101bb'), {
    kind: 'match',
    finding: { command: 'bind', host: undefined, address: '2001:db8::1', port: 443 },
  })
})

test('every prefix asks for more', () => {
  for (const [probe, samples] of [
    [probeSocks, [CAPTURED.socks4a, CAPTURED.greeting, SOCKS4]],
    [probeSocks5Request, [CAPTURED.request, fromHex('05030001c00002010035')]],
  ] as const) {
    for (const bytes of samples) {
      for (let length = 0; length < bytes.length; length++) {
        const answer = probe(bytes.subarray(0, length))
        assert.ok(answer.kind === 'more' && answer.atLeast > length && answer.atLeast <= bytes.length, `${length}`)
      }
    }
  }
})

test('what is not SOCKS, and what is a wrong form of it', () => {
  for (const hex of ['00', '06', '0403', '0500', '16030100']) assert.equal(probeSocks(fromHex(hex)).kind, 'no', hex)
  // a user without an end, a host with a slash, no host at all
  for (const hex of [`04010050cb007107${'61'.repeat(256)}`, '0401005000000001002f00', '04010050000000010000']) {
    assert.equal(probeSocks(fromHex(hex)).kind, 'malformed', hex)
  }
  for (const hex of ['0504', '050101', '0501000200', '0501000300', '05010003012f0050']) {
    assert.equal(probeSocks5Request(fromHex(hex)).kind, 'malformed', hex)
  }
  assert.equal(probeSocks5Request(fromHex('04')).kind, 'no')
})

test('random bytes never throw', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4, 5),
      fc.uint8Array({ maxLength: 600 }),
      (version, bytes) => void outcomeOf(subject, Uint8Array.of(version, ...bytes)),
    ),
  )
})
