import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { PolicyMatch } from '../config/policy-types.ts'
import type { Protocol } from '../config/types.ts'
import { networkOf, type Prefix } from '../net/prefix.ts'
import { conditionsOf } from './conditions.ts'
import type { FlowFacts } from './facts.ts'
import { EVERY_FLOW } from './match.fixture.ts'
import { RuleIndex } from './rule-index.ts'

const ADDRESSES = ['10.0.3.1', '10.0.3.9', '10.9.0.1', '192.0.2.7', 'fd00::1', 'fd00:8::1', '2001:db8::9']
const NAMES = ['a.example', 'www.a.example', 'x.www.a.example', 'b.example', 'example']
const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02']
const HOSTS = [...NAMES, '.a.example', '*.a.example', '.example', 'w*.example', '*www*']

const address = fc.constantFrom(...ADDRESSES)
const prefix = fc.tuple(address, fc.constantFrom(0, 7, 8, 16, 24, 29, 32, 48, 128)).map(([text, wanted]): Prefix => {
  const family = text.includes(':') ? 6 : 4
  const length = Math.min(wanted, family === 4 ? 32 : 128)
  return { family, address: networkOf(text, length), length }
})
const port = fc.constantFrom(22, 80, 443, 8080)
const ports = fc.oneof(
  port.map((from) => ({ from, to: from })),
  fc.constantFrom({ from: 80, to: 100 }, { from: 1, to: 65_535 }, { from: 400, to: 9_000 }),
)
const few = <T>(value: fc.Arbitrary<T>) => fc.array(value, { maxLength: 2 })
const matches: fc.Arbitrary<PolicyMatch> = fc.record({
  listeners: fc.constant([]),
  sources: few(prefix),
  destinations: few(prefix),
  ports: few(ports),
  protocols: few(fc.constantFrom<Protocol>('tcp', 'udp')),
  interfaces: few(fc.constantFrom('eth0', 'eth1', 'br0', 'br*', 'e*')),
  macs: few(fc.constantFrom(...MACS)),
  detected: fc.constant([]),
  hosts: few(fc.constantFrom(...HOSTS)),
  lists: fc.constant([]),
  times: fc.constant([]),
})
const facts: fc.Arbitrary<FlowFacts> = fc.record({
  listener: fc.constant('web'),
  protocol: fc.constantFrom<Protocol>('tcp', 'udp'),
  client: fc.record({ address, port }),
  originalDst: fc.record({ address, port }),
  link: fc.option(
    fc.record({
      interface: fc.option(fc.constantFrom('eth0', 'eth1', 'br0', 'br1'), { nil: undefined }),
      mac: fc.option(fc.constantFrom(...MACS), { nil: undefined }),
    }),
    { nil: undefined },
  ),
  finding: fc.option(
    fc.record({
      protocol: fc.constant('tls' as const),
      host: fc.option(fc.constantFrom(...NAMES), { nil: undefined }),
    }),
    { nil: undefined },
  ),
  learntNames: few(fc.constantFrom(...NAMES)),
  at: fc.constant(new Date(0)),
})

function found(index: RuleIndex, of: FlowFacts): number[] {
  const rules: number[] = []
  index.narrow(of)
  for (let at = index.next(0); at >= 0; at = index.next(at + 1)) rules.push(at)
  return rules
}

test('no rule that might match is left out, and they come in their order', () => {
  fc.assert(
    fc.property(fc.array(matches, { maxLength: 70 }), facts, (all, of) => {
      const index = new RuleIndex(all)
      const rules = found(index, of)
      const conditions = all.map((match) => conditionsOf(match, () => assert.fail()))
      const may = conditions.flatMap((asked, rule) => (asked.some((one) => one.ask(of) === 'no') ? [] : [rule]))
      assert.deepEqual(
        may.filter((rule) => !rules.includes(rule)),
        [],
      )
      assert.deepEqual(
        rules,
        rules.toSorted((a, b) => a - b),
      )
      assert.ok(rules.every((rule) => rule < all.length))
      const certain = rules.filter((rule) => index.isCertain(rule))
      assert.ok(certain.every((rule) => conditions[rule]!.every((one) => one.ask(of) === 'yes')))
    }),
    { numRuns: 2_000 },
  )
})

test('of many rules that ask for a name, an address, a port or a link, few are left', () => {
  const all = Array.from({ length: 3_000 }, (_, i): PolicyMatch => {
    if (i % 30 === 27) return { ...EVERY_FLOW, macs: [macOf(i)] }
    if (i % 30 === 28) return { ...EVERY_FLOW, interfaces: [`eth${i}`] }
    if (i % 3 === 0) return { ...EVERY_FLOW, hosts: [`h${i}.example`] }
    if (i % 3 === 1) return { ...EVERY_FLOW, ports: [{ from: 10_000 + i, to: 10_000 + i }] }
    return { ...EVERY_FLOW, sources: [{ family: 4, address: `10.${i >> 8}.${i & 255}.0`, length: 24 }] }
  })
  const of: FlowFacts = {
    listener: 'web',
    protocol: 'tcp',
    client: { address: '10.0.2.9', port: 1 },
    originalDst: { address: '10.0.4.2', port: 10_001 },
    link: { interface: 'eth58', mac: macOf(87) },
    finding: { protocol: 'tls', host: 'h3.example' },
    learntNames: [],
    at: new Date(0),
  }
  assert.deepEqual(found(new RuleIndex(all), of), [1, 2, 3, 58, 87])
})

function macOf(i: number): string {
  return `02:00:00:00:${[i >> 8, i & 255].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`
}
