import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Row } from './results.ts'
import { judge, verdicts } from './slower.ts'

const RATE = { better: 'more' } as const
const COST = { better: 'less' } as const
const STEADY = [100, 102, 98, 101, 99, 100, 103, 97, 100, 101]
const times = (factor: number): number[] => STEADY.map((value) => value * factor)

test('a tenth less of a rate, or more of a cost, in every round is slower', () => {
  assert.equal(judge(RATE, times(0.9), STEADY).isSlower, true)
  assert.equal(judge(COST, times(1.1), STEADY).isSlower, true)
})

test('a tenth more of a rate, or less of a cost, is not', () => {
  assert.equal(judge(RATE, times(1.1), STEADY).isSlower, false)
  assert.equal(judge(COST, times(0.9), STEADY).isSlower, false)
})

test('less than five in a hundred is not slower, however sure', () => {
  const { isSlower, low } = judge(COST, times(1.04), STEADY)
  assert.ok(low > 1)
  assert.equal(isSlower, false)
})

test('what some rounds contradict is noise', () => {
  const noisy = STEADY.map((value, round) => value * (round < 3 ? 0.9 : 1.3))
  assert.equal(judge(COST, noisy, STEADY).isSlower, false)
})

test('one round of ten that contradicts is an outlier', () => {
  const stalled = times(1.2).map((value, round) => (round === 4 ? value / 2 : value))
  assert.equal(judge(COST, stalled, STEADY).isSlower, true)
})

test('with few rounds every one of them has to agree', () => {
  assert.equal(judge(COST, [12, 12], [10, 10]).isSlower, true)
  assert.equal(judge(COST, [12, 9, 12], [10, 10, 10]).isSlower, false)
})

test('the interval is the sign test’s: of ten values the second smallest and the second largest', () => {
  const ones = STEADY.map(() => 1)
  const { low, high, slowdown } = judge(COST, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], ones)
  assert.deepEqual({ low, high, slowdown }, { low: 2, high: 9, slowdown: 5.5 })
})

test('one row that is slower makes all of it slower', () => {
  const row = (better: 'more' | 'less', ours: number[]): Row => ({
    ...{ suite: 'revision', case: 'bulk-1', title: '', unit: 'Gbit/s', better, medians: {} },
    ratios: { 'limpid ÷ other': { ofMedians: 1, min: 1, max: 1 } },
    values: { limpid: ours, other: STEADY },
  })
  assert.equal(verdicts([row('more', times(1)), row('less', times(1))], 'other').isSlower, false)
  assert.equal(verdicts([row('more', times(1)), row('less', times(1.2))], 'other').isSlower, true)
  const uncompared = { ...row('less', times(2)), ratios: {} }
  assert.deepEqual(verdicts([uncompared], 'other'), { lines: [], isSlower: false })
  assert.throws(() => judge(COST, [1], [1, 2]), RangeError)
})
