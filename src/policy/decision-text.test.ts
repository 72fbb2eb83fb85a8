import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defineConfig } from '../apps/define-config.ts'
import { readDecision } from '../config/hook-decision.ts'
import { formatDecision } from './decision-text.ts'

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const LIMITED = {
  then: 'forward',
  limit: { newFlows: '600/m', bytes: '16Mbit/s', per: 'rule' },
  timeouts: { idle: '90s', halfClose: 'off', query: '500ms' },
} as const

test('limits and timeouts are told in words', () => {
  const { policy } = defineConfig({ listeners: [{}], policy: { otherwise: LIMITED } })
  assert.equal(
    formatDecision(policy.otherwise),
    'forward with limit 10 flows/s and 2M bytes/s each way per rule with timeouts idle 1.5m, halfClose off, query 500ms',
  )
  const text = (newFlows: string) =>
    formatDecision(
      defineConfig({ listeners: [{}], policy: { otherwise: { then: 'forward', limit: { newFlows } } } }).policy
        .otherwise,
    )
  assert.deepEqual(
    ['10/s', '30/m', '5000/h', '7/h'].map(text),
    ['10 flows/s', '30 flows/m', '5000 flows/h', '7 flows/h'].map((rate) => `forward with limit ${rate} per client`),
  )
})

test('a hook may return them', () => {
  const { policy } = defineConfig({ listeners: [{}], policy: { otherwise: LIMITED } })
  assert.deepEqual(readDecision(LIMITED, 0, []), policy.otherwise)
  assert.match(
    String(readDecision({ then: 'forward', limit: { bytes: 10 } }, 0, [])),
    /^limit\.bytes: expected bytes or bits/,
  )
})
// biome-ignore-end lint/suspicious/noThenProperty: as above
