import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Seldom } from './seldom.ts'

test('the first time is told at once, and then once in a while how often it was since', () => {
  const seldom = new Seldom(1_000)
  const told = [0, 1, 999, 1_000, 1_001, 5_000, 5_999, 6_000].map((now) => seldom.happened(now))
  assert.deepEqual(told, [1, undefined, undefined, 3, undefined, 2, undefined, 2])
})
