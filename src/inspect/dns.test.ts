import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as dnsPacket from 'dns-packet'
import fc from 'fast-check'
import { parseAddress } from '../net/address.ts'
import { encoded, mutated, opt, queryFor, readAll, SEEDS } from './dns.fixture.ts'
import { emptyQuery, isOtherOpcode, readQuery } from './dns.ts'
import { answerAddresses, emptyAnswer, isBareError, keepSeconds, readAnswer } from './dns-answer.ts'
import { expandName, nameBytes, nameText } from './dns-name.ts'
import { randomNumbers } from './fuzz.fixture.ts'

const label = fc.string({ unit: fc.constantFrom(...'abcXYZ019-_'), minLength: 1, maxLength: 63 })
const name = fc
  .array(label, { minLength: 1, maxLength: 8 })
  .map((labels) => labels.join('.'))
  .filter((text) => text.length <= 253)
const type = fc.constantFrom('A', 'AAAA', 'TXT', 'MX', 'NS', 'SOA', 'SRV', 'PTR')

test('a query of another implementation is read as it was meant', () => {
  const size = fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined })
  fc.assert(
    fc.property(
      name,
      type,
      fc.nat(65_535),
      fc.nat(0x7ff),
      size,
      fc.boolean(),
      (text, qtype, id, flags, udpBytes, dnssecOk) => {
        const options = { id, type: qtype, flags: flags & 0x0770, dnssecOk }
        const bytes = queryFor(text, udpBytes === undefined ? options : { ...options, udpBytes })
        const query = emptyQuery()
        assert.equal(readQuery(bytes, query), undefined)
        const read = dnsPacket.decode(Buffer.from(bytes))
        assert.equal(query.id, read.id)
        assert.equal(query.flags & 0x07f0, read.flags)
        assert.equal(nameText(bytes, 12), read.questions?.[0]?.name.toLowerCase())
        assert.equal(query.questionEnd, 12 + text.length + 2 + 4)
        assert.equal(query.edns, udpBytes !== undefined)
        assert.equal(query.udpBytes, Math.max(512, udpBytes ?? 512))
        assert.equal(query.dnssecOk, dnssecOk && udpBytes !== undefined)
        assert.equal(query.extra, false)
      },
    ),
  )
})

test('addresses over CNAMEs, TTLs and their places are those that another implementation wrote', () => {
  const ttl = fc.nat(0x7fff_ffff)
  const address = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => parseAddress(text) ?? '::1')
  fc.assert(
    fc.property(
      fc.array(name, { minLength: 1, maxLength: 5 }),
      fc.array(address, { maxLength: 5 }),
      ttl,
      (names, addresses, seconds) => {
        const chain = [...new Set(names.map((text) => text.toLowerCase()))]
        const last = chain.at(-1)!
        const answers: dnsPacket.Answer[] = [
          ...chain.slice(1).map((data, i) => ({ type: 'CNAME' as const, name: chain[i]!, ttl: seconds, data })),
          ...addresses.map((data) => ({
            type: data.includes(':') ? ('AAAA' as const) : ('A' as const),
            name: last,
            ttl: seconds,
            data,
          })),
          { type: 'A', name: 'somebody.else.example', ttl: seconds, data: '192.0.2.66' },
        ]
        const bytes = encoded({
          type: 'response',
          questions: [{ name: chain[0]!, type: 'A' }],
          answers,
          additionals: [opt(512)],
        })
        const answer = emptyAnswer()
        assert.equal(readAnswer(bytes, answer), undefined)
        assert.deepEqual(answerAddresses(bytes, answer).toSorted(), addresses.toSorted())
        assert.equal(answer.minTtl, seconds)
        assert.equal(answer.ttls, answers.length)
        assert.equal(bytes.length - answer.optAt, 11)
        for (const at of answer.ttlAt.subarray(0, answer.ttls)) bytes.set([0, 0, 0, 42], at)
        assert.ok(dnsPacket.decode(Buffer.from(bytes)).answers?.every((record) => 'ttl' in record && record.ttl === 42))
      },
    ),
  )
})

test('CNAMEs are followed in whatever order they stand, and a circle of them ends', () => {
  const questions = [{ name: 'a.example', type: 'A' as const }]
  const cname = (from: string, data: string) => ({ type: 'CNAME' as const, name: from, ttl: 1, data })
  const addressesOf = (...answers: dnsPacket.Answer[]) => {
    const bytes = encoded({ type: 'response', questions, answers })
    const answer = emptyAnswer()
    assert.equal(readAnswer(bytes, answer), undefined)
    return answerAddresses(bytes, answer)
  }
  const found = addressesOf(
    { type: 'A', name: 'c.example', ttl: 1, data: '192.0.2.1' },
    cname('b.example', 'c.example'),
    cname('a.example', 'B.example'),
  )
  assert.deepEqual(found, ['192.0.2.1'])
  assert.deepEqual(addressesOf(cname('a.example', 'b.example'), cname('b.example', 'a.example')), [])
  const many = Array.from({ length: 120 }, (_, i) => ({
    type: 'A' as const,
    name: 'a.example',
    ttl: 1,
    data: `192.0.2.${i}`,
  }))
  assert.equal(addressesOf(...many, cname('a.example', 'a.example')).length, 32, 'each once, and not without end')
})

test('what is absent is kept for the smaller of the SOA’s TTL and minimum, without an SOA not at all', () => {
  const soa = { mname: 'ns.example', rname: 'root.example', serial: 1, refresh: 2, retry: 3, expire: 4 }
  const seconds = (flags: number, ttl: number, minimum: number | undefined, answers: dnsPacket.Answer[] = []) => {
    const authorities =
      minimum === undefined ? [] : [{ type: 'SOA' as const, name: 'example', ttl, data: { ...soa, minimum } }]
    const questions = [{ name: 'a.example', type: 'A' as const }]
    const answer = emptyAnswer()
    assert.equal(readAnswer(encoded({ type: 'response', flags, questions, answers, authorities }), answer), undefined)
    return keepSeconds(answer)
  }
  assert.equal(seconds(3, 300, 60), 60)
  assert.equal(seconds(3, 30, 60), 30)
  assert.equal(seconds(0, 300, 60), 60)
  assert.equal(seconds(0, 300, 60, [{ type: 'CNAME', name: 'a.example', ttl: 20, data: 'b.example' }]), 20)
  assert.equal(seconds(0, 300, undefined, [{ type: 'CNAME', name: 'a.example', ttl: 20, data: 'b.example' }]), 0)
  assert.equal(seconds(3, 0, undefined), 0)
  assert.equal(seconds(2, 300, 60), 0, 'SERVFAIL')
  assert.equal(seconds(0x200, 0, undefined, [{ type: 'A', name: 'a.example', ttl: 20, data: '192.0.2.1' }]), 0, 'TC')
})

const HEAD = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
const QUESTION = [1, 97, 0, 0, 1, 0, 1]
const OPT = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]
const withCounts = (answers: number, additionals: number) => [...HEAD.slice(0, 7), answers, 0, 0, 0, additionals]

const MALFORMED: [what: string, bytes: number[], fault: string][] = [
  ['nothing', [], 'short'],
  ['half a header', HEAD.slice(0, 11), 'short'],
  ['a response', [0, 1, 0x81, ...HEAD.slice(3), ...QUESTION], 'response'],
  ['no question', [...HEAD.slice(0, 5), 0, ...HEAD.slice(6)], 'questions'],
  ['two questions', [...HEAD.slice(0, 5), 2, ...HEAD.slice(6), ...QUESTION, ...QUESTION], 'questions'],
  ['a name without an end', [...HEAD, 1, 97], 'name'],
  ['a label of 64 bytes', [...HEAD, 64, ...new Array(64).fill(97), 0, 0, 1, 0, 1], 'name'],
  ['a name of 256 bytes', [...HEAD, ...new Array(127).fill([1, 97]).flat(), 1, 97, 0, 0, 1, 0, 1], 'name'],
  ['a pointer in the question', [...HEAD, 0xc0, 12, 0, 1, 0, 1], 'name'],
  ['a question cut off', [...HEAD, 1, 97, 0, 0, 1], 'short'],
  ['a record that is not there', [...withCounts(0, 1), ...QUESTION], 'record'],
  [
    'a record longer than the message',
    [...withCounts(1, 0), ...QUESTION, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3],
    'record',
  ],
  ['a pointer forwards', [...withCounts(1, 0), ...QUESTION, 0xc0, 40, ...new Array(30).fill(0)], 'record'],
  ['a pointer to itself', [...withCounts(1, 0), ...QUESTION, 0xc0, 19, ...new Array(30).fill(0)], 'record'],
  ['a pointer into the header', [...withCounts(1, 0), ...QUESTION, 0xc0, 4, ...new Array(30).fill(0)], 'record'],
  ['two OPT records', [...withCounts(0, 2), ...QUESTION, ...OPT, ...OPT], 'opt'],
  ['an OPT record among the answers', [...withCounts(1, 0), ...QUESTION, ...OPT], 'opt'],
  ['an OPT record with a name', [...withCounts(0, 1), ...QUESTION, 0xc0, 12, ...OPT.slice(1)], 'opt'],
  ['an EDNS option cut off', [...withCounts(0, 1), ...QUESTION, ...OPT.slice(0, 10), 3, 0, 8, 0], 'opt'],
]

for (const [what, bytes, fault] of MALFORMED) {
  test(`${what} is told: ${fault}`, () => assert.equal(readQuery(Uint8Array.from(bytes), emptyQuery()), fault))
}

test('a query that says more than its question is known as such', () => {
  const extra = (...bytes: number[]) => {
    const query = emptyQuery()
    assert.equal(readQuery(Uint8Array.from(bytes), query), undefined)
    return query.extra
  }
  assert.equal(extra(...withCounts(0, 1), ...QUESTION, ...OPT), false)
  const cookie = [0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]
  assert.equal(extra(...withCounts(0, 1), ...QUESTION, ...OPT.slice(0, 9), ...cookie), false)
  const subnet = [0, 8, 0, 8, 0, 4, 0, 1, 0, 0]
  assert.equal(extra(...withCounts(0, 1), ...QUESTION, ...OPT.slice(0, 9), ...subnet), true, 'client subnet')
  assert.equal(extra(...withCounts(0, 1), ...QUESTION, 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0), true, 'a signature')
  assert.equal(extra(...HEAD, ...QUESTION, 0), true, 'bytes behind it')
  assert.equal(extra(...withCounts(0, 1), ...QUESTION, ...OPT.slice(0, 6), 1, ...OPT.slice(7)), true, 'EDNS 1')
})

test('NOTIFY and UPDATE are other opcodes, a response and a stump are not', () => {
  assert.equal(isOtherOpcode(Uint8Array.from([0, 1, 0x20, ...HEAD.slice(3)])), true)
  assert.equal(isOtherOpcode(Uint8Array.from(HEAD)), false)
  assert.equal(isOtherOpcode(Uint8Array.from([0, 1, 0xa0, ...HEAD.slice(3)])), false)
  assert.equal(isOtherOpcode(Uint8Array.from([0, 1, 0x20])), false)
})

test('a header alone is an answer only when it says that the server cannot read', () => {
  assert.equal(isBareError(Uint8Array.from([0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0])), true)
  assert.equal(isBareError(Uint8Array.from([0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0])), false)
  assert.equal(isBareError(Uint8Array.from([0, 1, 0x80, 1, 0, 1, 0, 0, 0, 0, 0, 0])), false)
})

test('a name survives being written and read; odd bytes are one safe word', () => {
  fc.assert(fc.property(name, (text) => assert.equal(nameText(nameBytes(text)!), text.toLowerCase())))
  assert.equal(nameText(Uint8Array.from([4, 10, 46, 92, 200, 0])), '\\010\\046\\092\\200')
  assert.equal(nameText(Uint8Array.from([0])), '.')
  assert.deepEqual(nameBytes('.'), Buffer.from([0]))
  for (const text of ['', 'a..b', `${'a'.repeat(64)}.b`, 'ä.example', 'a b', `${'abcdefg.'.repeat(32)}`]) {
    assert.equal(nameBytes(text), undefined, text)
  }
})

test('pointers that lead to each other, and long chains of them, end', () => {
  const out = new Uint8Array(255)
  const chain = new Uint8Array(4096)
  for (let at = 14; at < 4094; at += 2) chain.set([0xc0 | ((at - 2) >> 8), (at - 2) & 0xff], at)
  assert.equal(expandName(chain, 4092, 4096, out), -1)
  assert.equal(expandName(chain, 40, 4096, out), 1)
  const circle = new Uint8Array(32)
  circle.set([1, 97, 0xc0, 12], 12)
  assert.equal(expandName(circle, 12, 32, out), -1)
})

test('whatever the bytes, the readers neither throw nor loop', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => void readAll(bytes)))
  const random = randomNumbers(20_260)
  const seen = new Set<string>()
  for (let i = 0; i < 20_000; i++) {
    const bytes = mutated(random)
    const before = bytes.slice()
    seen.add(readAll(bytes))
    assert.deepEqual(bytes, before)
  }
  for (const outcome of [
    'short short',
    'query query',
    'response answer true',
    'response record',
    'name name',
    'response opt',
  ]) {
    assert.ok(seen.has(outcome), `${outcome} is among ${[...seen].join(', ')}`)
  }
  assert.ok(SEEDS.every((seed) => !/short|name|record|opt/.test(readAll(seed))))
})
