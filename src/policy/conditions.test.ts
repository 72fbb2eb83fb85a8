import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { conditionsOf } from './conditions.ts'
import type { FlowFacts } from './facts.ts'
import { EVERY_FLOW } from './match.fixture.ts'

const ELSEWHERE = Array.from({ length: 20 }, (_, i) => `n${i}.elsewhere.test`)

test('a few hosts are asked as many are', () => {
  const entry = fc.constantFrom('a.example', '.a.example', '*.a.example', 'w*.a.example', '*a.ex*', 'xa.example')
  const name = fc.constantFrom('a.example', 'www.a.example', 'x.www.a.example', 'xa.example', 'example', 'b.test')
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 3 }), name, (hosts, host) => {
      const facts: FlowFacts = {
        listener: 'web',
        protocol: 'tcp',
        client: { address: '10.0.3.1', port: 1 },
        originalDst: { address: '10.0.4.2', port: 443 },
        finding: { protocol: 'tls', host },
        learntNames: [],
        at: new Date(0),
      }
      const answer = (asked: readonly string[]) =>
        conditionsOf({ ...EVERY_FLOW, hosts: asked }, () => assert.fail())[0]!.ask(facts)
      assert.equal(answer(hosts), answer([...hosts, ...ELSEWHERE]))
    }),
    { numRuns: 500 },
  )
})

test('a rule about DNS questions alone makes no other flow wait for its first bytes', () => {
  const flow: FlowFacts = {
    listener: 'web',
    protocol: 'tcp',
    client: { address: '10.0.3.1', port: 1 },
    originalDst: { address: '10.0.4.2', port: 443 },
    finding: undefined,
    learntNames: [],
    at: new Date(0),
  }
  const answer = (detected: readonly ('dns' | 'tls')[], facts: FlowFacts) =>
    conditionsOf({ ...EVERY_FLOW, detected }, () => assert.fail())[0]!.ask(facts)
  assert.equal(answer(['dns'], flow), 'no')
  assert.equal(answer(['dns', 'tls'], flow), 'unknown')
  assert.equal(answer(['dns'], { ...flow, isNamelessQuestion: true }), 'unknown')
  assert.equal(answer(['dns'], { ...flow, finding: { protocol: 'dns', host: 'a.example' } }), 'yes')
})
