import assert from 'node:assert/strict'
import { test } from 'node:test'
import { queryFor } from '../../inspect/dns.fixture.ts'
import { AppUnderTest, dnsListener } from './app.fixture.ts'
import { LargeAnswers } from './large-answers.ts'

test('a network of clients has 200 large answers at once, then 100 a second; others have theirs', () => {
  const large = new LargeAnswers()
  const many = (client: (i: number) => string, nowMs: number): number =>
    Array.from({ length: 1_000 }, (_, i) => large.mayGo(client(i), nowMs)).filter((may) => may).length
  assert.equal(
    many((i) => `10.0.3.${i % 256}`, 1_000),
    200,
  )
  assert.equal(
    many(() => '10.0.3.1', 1_100),
    10,
  )
  assert.equal(
    many(() => '10.0.3.1', 2_100),
    100,
  )
  assert.equal(
    many(() => '10.0.3.1', 60_000),
    200,
  )
  assert.equal(
    many((i) => `2001:db8:1:${(i % 256).toString(16)}::1`, 60_000),
    200,
    'IPv6: a /56',
  )
})

test('beyond it a large answer of our own is a truncated one; small answers, and those of servers, are not touched', () => {
  const texts = Array.from({ length: 5 }, () => 'x'.repeat(200)).join(', ')
  const large = `{ names: large.example, then: answer, answers: { txt: [${texts}] } }`
  const app = new AppUnderTest(
    dnsListener(`{ rules: [${large}, { names: small.example, then: answer, answers: { a: 10.1.2.3 } }] }`),
  )
  const asked = queryFor('large.example', { type: 'TXT', udpBytes: 1232 })
  for (let i = 0; i < 200; i++) assert.equal(app.reply(asked).answers?.length, 5)
  const beyond = app.reply(asked)
  assert.deepEqual([beyond.flag_tc, beyond.answers, beyond.additionals?.length, beyond.id], [true, [], 1, 0x1234])
  const decision = app.decide(asked)
  assert.ok(decision.kind === 'reply' && decision.bytes.length <= asked.length, 'not more out than in')
  assert.equal(app.reply(queryFor('small.example')).answers?.length, 1)
  assert.equal(app.app.stats().limited, 2)
  app.nowMs += 1_000
  assert.equal(app.reply(asked).answers?.length, 5)
})
