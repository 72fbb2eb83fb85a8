import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Allowance } from './allowance.ts'

test('a burst is allowed at once, then one per interval, and the burst comes back with time', () => {
  const allowance = new Allowance(3, 1_000)
  for (let i = 0; i < 3; i++) {
    assert.equal(allowance.waitMs(100), 0)
    allowance.take(100)
  }
  assert.equal(allowance.waitMs(100), 1_000)
  assert.equal(allowance.waitMs(600), 500)
  assert.equal(allowance.waitMs(1_100), 0)
  allowance.take(1_100)
  assert.equal(allowance.waitMs(1_100), 1_000)
  for (let i = 0; i < 3; i++) {
    assert.equal(allowance.waitMs(10_000), 0)
    allowance.take(10_000)
  }
  assert.equal(allowance.waitMs(10_000), 1_000)
})
