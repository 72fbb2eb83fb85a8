import assert from 'node:assert/strict'
import { test } from 'node:test'
import { buildPolicy, type PolicyInput } from '../config/policy.ts'
import { NameSetBuilder } from '../net/name-set.ts'
import { parsePrefix } from '../net/prefix.ts'
import { PrefixSetBuilder } from '../net/prefix-set.ts'
import type { FlowFacts } from './facts.ts'
import { Policy } from './policy.ts'

const FACTS: FlowFacts = {
  listener: 'web',
  protocol: 'tcp',
  client: { address: '10.0.3.7', port: 40_000 },
  originalDst: { address: '10.0.4.2', port: 443 },
  finding: undefined,
  learntNames: [],
  at: new Date(2026, 10, 25, 12, 30), // a Wednesday
}

function policyOf(rules: PolicyInput['rules'], listed: readonly string[] = []): Policy {
  const names = new NameSetBuilder()
  for (const name of listed) names.add({ kind: 'suffix', name })
  const prefixes = new PrefixSetBuilder()
  prefixes.add(parsePrefix('192.0.2.0/24')!)
  const list = { names: names.build(), prefixes: prefixes.build() }
  const problems: string[] = []
  const config = buildPolicy(
    { lists: { bad: '/nowhere' }, rules },
    {
      apps: undefined,
      markMask: 0,
      listeners: ['web', 'mail'],
      report: ({ message }) => problems.push(message),
    },
  )
  assert.deepEqual(problems, [])
  return new Policy(config, () => list)
}

const REJECT = ['then', 'reject'] as const
type Rule = NonNullable<PolicyInput['rules']>[number]

/** A rule that rejects what it matches; biome would have `then` for a promise. */
function rejecting(match: Partial<Rule>): Rule {
  return { ...match, [REJECT[0]]: REJECT[1] } as unknown as Rule
}

function outcome(policy: Policy, facts: Partial<FlowFacts>): string {
  const decided = policy.decide({ ...FACTS, ...facts })
  return decided.kind === 'inspect' ? 'inspect' : decided.decision.kind
}

test('each condition takes what it says and nothing else', () => {
  const cases: [Partial<Rule>, Partial<FlowFacts>, Partial<FlowFacts>][] = [
    [{ listeners: ['mail'] }, { listener: 'mail' }, { listener: 'web' }],
    [{ protocols: ['udp'] }, { protocol: 'udp' }, { protocol: 'tcp' }],
    [
      { ports: [[{ from: 25, to: 25 }], [{ from: 400, to: 450 }]] },
      {},
      { originalDst: { address: '10.0.4.2', port: 80 } },
    ],
    [{ sources: [parsePrefix('10.0.3.0/29')!] }, {}, { client: { address: '10.0.3.8', port: 1 } }],
    [{ destinations: [parsePrefix('fd00::/8')!] }, { originalDst: { address: 'fd00::2', port: 443 } }, {}],
    [
      { lists: ['bad'] },
      { originalDst: { address: '192.0.2.9', port: 443 } },
      { finding: { protocol: 'unknown', host: undefined } },
    ],
    [
      { detected: ['ssh'] },
      { finding: { protocol: 'ssh', host: undefined } },
      { finding: { protocol: 'tls', host: 'a.example' } },
    ],
    [
      { hosts: ['.a.example'] },
      { finding: { protocol: 'tls', host: 'www.a.example' } },
      { finding: { protocol: 'tls', host: 'b.example' } },
    ],
  ]
  for (const [match, matching, other] of cases) {
    const policy = policyOf([rejecting(match)])
    assert.equal(outcome(policy, matching), 'reject', JSON.stringify(match))
    assert.equal(outcome(policy, other), 'forward', JSON.stringify(match))
  }
})

test('first bytes are asked for only when a rule needs them that nothing else rules out', () => {
  const policy = policyOf([
    rejecting({ hosts: ['a.example'], ports: [[{ from: 443, to: 443 }]] }),
    rejecting({ sources: [parsePrefix('10.0.3.9')!] }),
  ])
  assert.equal(outcome(policy, {}), 'inspect')
  assert.equal(outcome(policy, { originalDst: { address: '10.0.4.2', port: 80 } }), 'forward')
  const byAddress = policyOf([rejecting({ sources: [parsePrefix('10.0.3.7')!] }), rejecting({ hosts: ['a.example'] })])
  assert.equal(outcome(byAddress, {}), 'reject')
})

test('what the flow says itself counts, and a name from DNS only where it says nothing', () => {
  const policy = policyOf([rejecting({ hosts: ['a.example'] })])
  const learntNames = ['a.example']
  assert.equal(outcome(policy, { learntNames }), 'inspect')
  assert.equal(outcome(policy, { learntNames, finding: { protocol: 'unknown', host: undefined } }), 'reject')
  assert.equal(outcome(policy, { learntNames, finding: { protocol: 'tls', host: 'b.example' } }), 'forward')
})

test('a list holds names and prefixes, and is asked about both', () => {
  const policy = policyOf([rejecting({ lists: ['bad'] })], ['ads.example'])
  assert.equal(outcome(policy, {}), 'inspect')
  assert.equal(outcome(policy, { originalDst: { address: '192.0.2.1', port: 443 } }), 'reject')
  assert.equal(outcome(policy, { finding: { protocol: 'tls', host: 'x.ads.example' } }), 'reject')
  assert.equal(outcome(policy, { finding: { protocol: 'tls', host: 'example' } }), 'forward')
})

test('the account names the rule that decides, and what was not so of each before it', () => {
  const policy = policyOf([
    rejecting({ name: 'mail', ports: [[{ from: 25, to: 25 }]] }),
    rejecting({ name: 'ads', hosts: ['.ads.example'] }),
    rejecting({ name: 'all' }),
  ])
  const decision = { kind: 'reject', rejection: 'reset' }
  assert.deepEqual(policy.explain({ ...FACTS, finding: { protocol: 'tls', host: 'ok.example' } }), [
    { rule: 'mail', answer: 'no', decision, because: 'ports 25: found 443' },
    { rule: 'ads', answer: 'no', decision, because: 'hosts .ads.example: found ok.example' },
    { rule: 'all', answer: 'yes', decision, because: undefined },
  ])
  assert.deepEqual(policy.explain(FACTS).slice(1), [
    { rule: 'ads', answer: 'unknown', decision, because: 'hosts .ads.example: found not looked at yet' },
    { rule: 'all', answer: 'yes', decision, because: undefined },
  ])
})

test('where no rule decides, the account ends with what is decided then', () => {
  const { rule, answer, decision } = policyOf([rejecting({ name: 'mail', ports: [[{ from: 25, to: 25 }]] })])
    .explain(FACTS)
    .at(-1)!
  assert.deepEqual([rule, answer, decision.kind], [undefined, 'yes', 'forward'])
})
