import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mutated, opt, queryFor } from '../../inspect/dns.fixture.ts'
import { randomNumbers } from '../../inspect/fuzz.fixture.ts'
import {
  AppUnderTest,
  addresses,
  answerTo,
  CLIENT,
  decoded,
  dnsListener,
  fuzzApp,
  SERVER,
  sessionOf,
} from './app.fixture.ts'
import { LearntNames } from './learnt.ts'

const WWW = 'www.example.org'
const idOf = (bytes: Uint8Array) => (bytes[0]! << 8) | bytes[1]!

test('the server sees an id of ours, and the client gets the answer with its own', () => {
  const under = new AppUnderTest()
  const ids = new Set<number>()
  for (let id = 0; id < 50; id++) {
    const query = queryFor(`${id}.example.org`, { id: 77 })
    const sent = under.sent(query)
    ids.add(idOf(sent))
    assert.deepEqual(sent.subarray(2), query.subarray(2))
    assert.equal(idOf(under.received(answerTo(sent, addresses(`${id}.example.org`, 60, '192.0.2.1')))!), 77)
  }
  assert.ok(ids.size > 45)
})

test('an answer with another id, another question, or a second time, does not reach the client', () => {
  const under = new AppUnderTest()
  const sent = under.sent(queryFor(WWW))
  const answer = answerTo(sent, addresses(WWW, 60, '192.0.2.1'))
  const forged = answer.slice()
  forged[1] = forged[1]! ^ 1
  assert.equal(under.received(forged), undefined)
  const otherName = answer.slice()
  otherName[13] = 120
  assert.equal(under.received(otherName), undefined)
  const otherType = answer.slice()
  otherType[12 + 17 + 1] = 28
  assert.equal(under.received(otherType), undefined)
  assert.equal(under.received(sent), undefined, 'the query itself')
  assert.notEqual(under.received(answer), undefined)
  assert.equal(under.received(answer), undefined, 'twice')
  assert.equal(under.received(answer, sessionOf(CLIENT)), undefined, 'a session that asked nothing')
  const { answersUnasked, answersMismatched, answersMalformed, answers } = under.app.stats()
  assert.deepEqual([answersUnasked, answersMismatched, answersMalformed, answers], [3, 2, 1, 1])
})

test('an answer after its time is dropped, and so is one whose query 64 others followed', () => {
  const under = new AppUnderTest()
  const late = under.sent(queryFor(WWW))
  under.nowMs += 15_000
  assert.equal(under.received(answerTo(late, addresses(WWW, 60, '192.0.2.1'))), undefined)
  const first = under.sent(queryFor(WWW))
  const others = Array.from({ length: 64 }, (_, i) => under.sent(queryFor(`${i}.example.org`)))
  assert.equal(under.received(answerTo(first, addresses(WWW, 60, '192.0.2.1'))), undefined)
  assert.notEqual(under.received(answerTo(others[0]!, {})), undefined)
})

test('a second query is answered from the cache: id, RD and spelling are its own, TTLs have aged', () => {
  const under = new AppUnderTest()
  assert.ok(under.exchange(queryFor(WWW, { udpBytes: 1232 }), addresses(WWW, 300, '192.0.2.1', '192.0.2.2')))
  under.nowMs += 100_500
  const reply = under.reply(queryFor('wWw.eXample.ORG', { id: 4242 }))
  assert.equal(reply.id, 4242)
  assert.equal(reply.questions![0]!.name, 'wWw.eXample.ORG')
  assert.deepEqual(
    reply.answers!.map((answer) => 'ttl' in answer && [answer.ttl, answer.type === 'A' && answer.data]),
    [
      [200, '192.0.2.1'],
      [200, '192.0.2.2'],
    ],
  )
  assert.equal(reply.additionals!.length, 0, 'no EDNS for who has none')
  const edns = under.reply(queryFor(WWW, { udpBytes: 4096 }))
  assert.equal(edns.additionals!.length, 1)
  under.nowMs += 199_500
  assert.equal(under.decide(queryFor(WWW)).kind, 'forward', 'the TTL is over')
})

test('what changes an answer is asked anew: type, DO, CD, RD, the server that is asked', () => {
  const under = new AppUnderTest()
  under.exchange(queryFor(WWW), addresses(WWW, 300, '192.0.2.1'))
  assert.equal(under.decide(queryFor(WWW)).kind, 'reply')
  const others = [
    queryFor(WWW, { type: 'AAAA' }),
    queryFor(WWW, { udpBytes: 1232, dnssecOk: true }),
    queryFor(WWW, { flags: 0x110 }),
    queryFor(WWW, { flags: 0 }),
    queryFor('www.example.net'),
  ]
  for (const other of others) assert.equal(under.decide(other).kind, 'forward')
  assert.equal(under.decide(queryFor(WWW), CLIENT, { address: '10.0.4.3', port: 53 }).kind, 'forward')
  assert.equal(under.decide(queryFor(WWW), { address: '10.0.3.9', port: 1 }).kind, 'reply', 'another client')
})

test('with configured upstreams all servers share the answers; with source client-port no client gets those of another', () => {
  const shared = new AppUnderTest(dnsListener('{ upstreams: 10.0.4.7 }'))
  const session = sessionOf(CLIENT, SERVER, { address: '10.0.4.7', port: 53 })
  shared.exchange(queryFor(WWW), addresses(WWW, 300, '192.0.2.1'), session)
  assert.equal(shared.decide(queryFor(WWW), CLIENT, { address: '10.0.4.3', port: 53 }).kind, 'reply')
  const own = new AppUnderTest(dnsListener('{}', 'source: client-port'))
  own.exchange(queryFor(WWW), addresses(WWW, 300, '192.0.2.1'))
  assert.equal(own.decide(queryFor(WWW), { ...CLIENT, port: 5 }).kind, 'reply')
  assert.equal(own.decide(queryFor(WWW), { ...CLIENT, address: '10.0.3.2' }).kind, 'forward')
})

test('an answer that is truncated, has failed, or is to a client subnet is not kept', () => {
  const under = new AppUnderTest()
  under.exchange(queryFor('a.example'), { ...addresses('a.example', 300, '192.0.2.1'), flags: 0x200 })
  under.exchange(queryFor('b.example'), { flags: 2 })
  under.exchange(queryFor('c.example'), addresses('c.example', 0, '192.0.2.1'))
  for (const name of ['a.example', 'b.example', 'c.example']) assert.equal(under.decide(queryFor(name)).kind, 'forward')
  const subnet = Uint8Array.from([...queryFor(WWW, { udpBytes: 1232 }).slice(0, -1), 8, 0, 8, 0, 4, 0, 1, 0, 0])
  under.exchange(subnet, addresses(WWW, 300, '192.0.2.1'))
  assert.equal(under.decide(queryFor(WWW)).kind, 'forward')
  assert.equal(under.app.stats().cacheEntries, 0)
})

test('NXDOMAIN is kept as long as its SOA says', () => {
  const under = new AppUnderTest()
  const data = { mname: 'ns.example', rname: 'root.example', serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 60 }
  under.exchange(queryFor('no.example'), { flags: 3, authorities: [{ type: 'SOA', name: 'example', ttl: 300, data }] })
  under.nowMs += 59_000
  const { rcode, authorities } = under.reply(queryFor('no.example'))
  const [soa] = authorities!
  assert.deepEqual([rcode, soa?.type === 'SOA' && soa.ttl], ['NXDOMAIN', 1])
  under.nowMs += 1_000
  assert.equal(under.decide(queryFor('no.example')).kind, 'forward')
})

test('an answer larger than the client can receive says TC and leaves the records out', () => {
  const under = new AppUnderTest()
  const many = Array.from({ length: 40 }, (_, i) => `192.0.2.${i}`)
  const relayed = decoded(under.exchange(queryFor(WWW), addresses(WWW, 300, ...many))!)
  assert.deepEqual([relayed.flag_tc, relayed.answers!.length, relayed.additionals!.length], [true, 0, 0])
  const kept = under.reply(queryFor(WWW))
  assert.deepEqual([kept.flag_tc, kept.answers!.length], [true, 0])
  const edns = under.reply(queryFor(WWW, { udpBytes: 600 }))
  assert.deepEqual([edns.flag_tc, edns.answers!.length, edns.additionals!.length], [true, 0, 1])
  assert.equal(under.reply(queryFor(WWW, { udpBytes: 4096 })).flag_tc, true, 'ours are one packet: 1232 bytes')
  const few = new AppUnderTest()
  few.exchange(queryFor(WWW), addresses(WWW, 300, ...many.slice(0, 20)))
  assert.equal(few.reply(queryFor(WWW, { udpBytes: 1232 })).answers!.length, 20)
  const large = decoded(few.exchange(queryFor('a.example', { udpBytes: 4096 }), addresses('a.example', 0, ...many))!)
  assert.equal(large.answers!.length, 40, 'what a server sends is passed on to who can receive it')
})

test('rules answer, refuse, deny and drop before anything is forwarded', () => {
  const rules = `
      - { names: a.example, then: answer, answers: { a: [192.0.2.1, 192.0.2.2], aaaa: "2001:db8::1", txt: hello, ttl: 5m } }
      - { suffixes: ads.example, then: nxdomain }
      - { suffixes: corp.example, types: [A, AAAA], then: refuse }
      - { names: alias.example, then: answer, answers: { cname: www.example.net, a: 192.0.2.7 } }
      - { types: [ANY, TYPE65], then: drop }
      - { names: split.example, then: forward, to: "10.0.4.9:5353" }`
  const under = new AppUnderTest(dnsListener(`\n      rules:${rules.replaceAll('\n', '\n  ')}`))
  const a = under.reply(queryFor('A.example', { id: 9, udpBytes: 1232 }))
  assert.equal(a.id, 9)
  assert.equal(a.questions![0]!.name, 'A.example')
  assert.deepEqual(
    a.answers!.map((answer) => answer.type === 'A' && [answer.name, answer.ttl, answer.data]),
    [
      ['A.example', 300, '192.0.2.1'],
      ['A.example', 300, '192.0.2.2'],
    ],
  )
  assert.equal(a.additionals!.length, 1)
  assert.deepEqual([a.flag_qr, a.flag_rd, a.flag_ra, a.flag_aa, a.rcode], [true, true, true, false, 'NOERROR'])
  const aaaa = under.reply(queryFor('a.example', { type: 'AAAA' })).answers![0]!
  assert.equal(aaaa.type === 'AAAA' && aaaa.data, '2001:db8::1')
  const txt = under.reply(queryFor('a.example', { type: 'TXT' })).answers![0]!
  assert.equal(txt.type === 'TXT' && String(txt.data), 'hello')
  const mx = under.reply(queryFor('a.example', { type: 'MX' }))
  assert.deepEqual([mx.rcode, mx.answers!.length], ['NOERROR', 0])
  assert.equal(under.reply(queryFor('x.ads.example')).rcode, 'NXDOMAIN')
  assert.equal(under.reply(queryFor('corp.example')).rcode, 'REFUSED')
  assert.equal(under.decide(queryFor('corp.example', { type: 'MX' })).kind, 'forward')
  assert.deepEqual(
    under.reply(queryFor('alias.example')).answers!.map((answer) => [answer.type, answer.name]),
    [
      ['CNAME', 'alias.example'],
      ['A', 'www.example.net'],
    ],
  )
  assert.deepEqual(under.decide(queryFor('b.example', { type: 'ANY' })), { kind: 'drop', reason: 'dns-rule' })
  assert.deepEqual(under.decide(queryFor('split.example')), {
    kind: 'forward',
    to: { address: '10.0.4.9', port: 5353 },
  })
  assert.deepEqual(under.decide(queryFor('else.example')), { kind: 'forward', to: undefined })
})

test('malformed queries and responses are dropped by reason, other opcodes pass untouched', () => {
  const under = new AppUnderTest()
  assert.deepEqual(under.decide(new Uint8Array(3)), { kind: 'drop', reason: 'dns-short' })
  const response = queryFor(WWW)
  response[2] = response[2]! | 0x80
  assert.deepEqual(under.decide(response), { kind: 'drop', reason: 'dns-response' })
  const none = queryFor(WWW)
  none[5] = 0
  assert.deepEqual(under.decide(none), { kind: 'drop', reason: 'dns-questions' })
  const stats = under.app.stats()
  assert.deepEqual([stats['dns-short'], stats['dns-response'], stats['dns-questions'], stats['dns-name']], [1, 1, 1, 0])
  const notify = queryFor('example.org', { type: 'SOA', id: 31 })
  notify[2] = 0x20
  assert.equal(under.decide(notify).kind, 'forward')
  assert.deepEqual(under.sent(notify), notify)
  const answer = notify.slice()
  assert.equal(under.received(answer), undefined)
  answer[2] = 0xa0
  assert.deepEqual(under.received(answer), answer)
  assert.equal(under.received(answer), undefined)
})

test('a server that cannot read the query may say so by a header alone', () => {
  const under = new AppUnderTest()
  const sent = under.sent(queryFor(WWW, { id: 5 }))
  const bare = Uint8Array.from([sent[0]!, sent[1]!, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0])
  assert.equal(idOf(under.received(bare)!), 5)
})

test('an upstream that is silent for two seconds is left for ten, and the next one is taken', () => {
  const under = new AppUnderTest(dnsListener('{ upstreams: [10.0.4.2, "10.0.4.3:5353"], cache: off }'))
  const [first, second] = [
    { address: '10.0.4.2', port: 53 },
    { address: '10.0.4.3', port: 5353 },
  ]
  const to = () => {
    const decision = under.decide(queryFor(WWW))
    return decision.kind === 'forward' ? decision.to : decision
  }
  assert.deepEqual(to(), first)
  under.sent(queryFor(WWW), sessionOf(CLIENT, SERVER, first))
  under.nowMs += 2_000
  assert.deepEqual(to(), first)
  under.nowMs += 1
  assert.deepEqual(to(), second)
  under.exchange(queryFor(WWW), addresses(WWW, 60, '192.0.2.1'), sessionOf(CLIENT, SERVER, second))
  under.nowMs += 9_999
  assert.deepEqual(to(), second)
  under.nowMs += 1
  assert.deepEqual(to(), first)
  under.exchange(queryFor(WWW), addresses(WWW, 60, '192.0.2.1'), sessionOf(CLIENT, SERVER, first))
  under.nowMs += 60_000
  assert.deepEqual(to(), first)
})

test('a client learns the names of addresses, from servers and from the cache alike, until the TTL is over', () => {
  const learnt = new LearntNames()
  const under = new AppUnderTest(dnsListener(), learnt)
  const names = (client: string) => learnt.namesOf(client, '192.0.2.1', under.nowMs)
  under.exchange(queryFor('WWW.example.org'), addresses(WWW, 300, '192.0.2.1', '192.0.2.2'))
  assert.deepEqual(names(CLIENT.address), [WWW])
  assert.deepEqual(names('10.0.3.2'), [])
  under.nowMs += 290_000
  under.reply(queryFor(WWW), { address: '10.0.3.2', port: 1 })
  assert.deepEqual(names('10.0.3.2'), [WWW])
  under.nowMs += 11_000
  assert.deepEqual(names(CLIENT.address), [])
  assert.deepEqual(names('10.0.3.2'), [WWW], 'for half a minute at least')
  under.nowMs += 30_000
  assert.deepEqual(names('10.0.3.2'), [])
})

test('a flood of names leaves the cache within its bounds, with the newest in it', () => {
  const under = new AppUnderTest(dnsListener('{ cache: { entries: 100, bytes: 30000 } }'))
  for (let i = 0; i < 1000; i++) under.exchange(queryFor(`${i}.example`), addresses(`${i}.example`, 300, '192.0.2.1'))
  const { cacheEntries, cacheBytes, cacheEvicted, cacheStored } = under.app.stats()
  assert.ok(cacheEntries! > 20 && cacheEntries! <= 100)
  assert.ok(cacheBytes! <= 30_000)
  assert.equal(cacheEvicted! + cacheEntries!, cacheStored)
  assert.equal(under.decide(queryFor('999.example')).kind, 'reply')
  assert.equal(under.decide(queryFor('0.example')).kind, 'forward')
})

test('whatever comes from clients and servers, the app neither throws nor grows', () => {
  const random = randomNumbers(4711)
  const offer = fuzzApp()
  const outcomes = new Set<string>()
  for (let i = 0; i < 10_000; i++) outcomes.add(offer(mutated(random)))
  for (const outcome of ['forward', 'reply', 'drop', 'drop, answer taken']) assert.ok(outcomes.has(outcome), outcome)
})

test('the OPT record of a server is not handed on to others', () => {
  const under = new AppUnderTest()
  const cookie = { ...opt(4096), options: [{ code: 10, data: Buffer.from('0102030405060708', 'hex') }] } as unknown
  const answer = { ...addresses(WWW, 300, '192.0.2.1'), additionals: [cookie as ReturnType<typeof opt>] }
  under.exchange(queryFor(WWW, { udpBytes: 4096 }), answer)
  const [kept] = under.reply(queryFor(WWW, { udpBytes: 4096 })).additionals as unknown as { options: unknown[] }[]
  assert.deepEqual(kept!.options, [])
})
