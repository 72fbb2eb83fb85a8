import assert from 'node:assert/strict'
import { test } from 'node:test'
import { latencyOf } from './latencies.ts'

test('a quantile is the least value that so many do not exceed', () => {
  const thousand = Array.from({ length: 1000 }, (_, i) => 1000 - i)
  assert.deepEqual(latencyOf(thousand), { p50Ms: 500, p99Ms: 990, p999Ms: 999 })
  assert.deepEqual(latencyOf([7]), { p50Ms: 7, p99Ms: 7, p999Ms: 7 })
  assert.throws(() => latencyOf([]), RangeError)
})
