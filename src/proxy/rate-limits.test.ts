import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RateLimits } from './rate-limits.ts'

const PER_CLIENT = { per: 'client', newFlows: { intervalMs: 100, burst: 3 }, bytes: undefined } as const

test('a burst, then one for each interval, and each client for itself', () => {
  const limits = new RateLimits()
  const ask = (now: number, client = '10.0.0.1', rule: string | undefined = 'a') =>
    limits.admits(rule, PER_CLIENT, client, now)
  assert.deepEqual(
    [0, 0, 0, 0, 50, 99].map((now) => ask(now)),
    [true, true, true, false, false, false],
  )
  assert.deepEqual(
    [100, 101, 200].map((now) => ask(now)),
    [true, false, true],
  )
  assert.equal(ask(200, '10.0.0.2'), true)
  assert.equal(ask(200, '10.0.0.1', 'b'), true)
  assert.deepEqual(
    [9_000, 9_000, 9_000, 9_000].map((now) => ask(now)),
    [true, true, true, false],
  )
})

test('per rule all clients share one', () => {
  const limits = new RateLimits()
  const limit = { ...PER_CLIENT, per: 'rule' } as const
  const asked = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'].map((client) => limits.admits('a', limit, client, 0))
  assert.deepEqual(asked, [true, true, true, false])
  assert.equal(limits.admits(undefined, limit, '10.0.0.1', 0), true)
})

test('addresses of one /64 are one client', () => {
  const limits = new RateLimits()
  const asked = ['fd00::1', 'fd00::2', 'fd00::ffff:1', 'fd00::4', 'fd00:0:0:1::1'].map((client) =>
    limits.admits('a', PER_CLIENT, client, 0),
  )
  assert.deepEqual(asked, [true, true, true, false, true])
})

test('with more clients than are remembered those of long ago are forgotten, not the busy one', () => {
  const limits = new RateLimits()
  const once = { ...PER_CLIENT, newFlows: { burst: 1, intervalMs: 1e9 } }
  const busy = '192.0.2.1'
  assert.equal(limits.admits('a', once, busy, 0), true)
  assert.equal(limits.admits('a', once, '10.0.0.0', 0), true)
  for (let i = 1; i < 70_000; i++) {
    limits.admits('a', once, `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, i)
    if (i % 1_000 === 0) assert.equal(limits.admits('a', once, busy, i), false)
  }
  assert.equal(limits.admits('a', once, '10.0.0.0', 70_000), true)
})
