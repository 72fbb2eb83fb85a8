import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compare, median } from './statistics.ts'

test('the median is the middle value, whatever the order', () => {
  assert.equal(median([9, 1, 5]), 5)
  assert.equal(median([4, 1, 3, 2]), 2.5)
  assert.throws(() => median([]), RangeError)
})

test('a ratio is that of the medians, and its spread that of the rounds', () => {
  assert.deepEqual(compare([10, 20, 30], [10, 10, 10]), { ofMedians: 2, min: 1, max: 3 })
  assert.throws(() => compare([1], [1, 2]), RangeError)
})
