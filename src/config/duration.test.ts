import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatDuration, parseDuration } from './duration.ts'

test('a duration needs a unit, and off is 0', () => {
  const cases: [string, number | undefined][] = [
    ['500ms', 500],
    ['10s', 10_000],
    ['1.5s', 1_500],
    ['5 m', 300_000],
    ['1h', 3_600_000],
    ['1d', 86_400_000],
    ['0', 0],
    ['off', 0],
    ['10', undefined],
    ['-1s', undefined],
    ['1e3s', undefined],
    ['s', undefined],
    ['10 seconds', undefined],
    ['25d', undefined], // a timer of Node would fire at once
    ['', undefined],
  ]
  for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text)
})

test('durations are shown with two digits', () => {
  assert.deepEqual([0.4, 999, 1000, 1234, 65_000, 7_200_000].map(formatDuration), [
    '0ms',
    '999ms',
    '1s',
    '1.2s',
    '1.1m',
    '2h',
  ])
})
