import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BYTE_COUNT, BYTE_RATE, formatBytes } from './rate-values.ts'

test('rates are bytes, or bits where that is said, and decimal', () => {
  const rates = {
    '1000/s': 1_000,
    '1k/s': 1_000,
    '1.5M/s': 1_500_000,
    '100G/s': 1e11,
    '8kbit/s': 1_000,
    '80Mbit/s': 10_000_000,
    '1Gbit/s': 125_000_000,
  }
  for (const [text, bytes] of Object.entries(rates)) assert.equal(BYTE_RATE.parse(text), bytes, text)
  for (const text of [
    '',
    '/s',
    '999/s',
    '7kbit/s',
    '1K/s',
    '1Mb/s',
    '1MiB/s',
    '1M',
    '1M/m',
    '100.1G/s',
    'NaN/s',
    '1..5M/s',
  ]) {
    assert.equal(BYTE_RATE.parse(text), undefined, text)
  }
  assert.deepEqual(
    ['10M', '10 MB/s', '10mbit/s', '5KB/s', 'fast'].map((text) => BYTE_RATE.suggest?.(text)),
    ['10M/s', '10M/s', '10Mbit/s', '5k/s', undefined],
  )
})

test('a burst has room for the largest datagram', () => {
  assert.deepEqual(
    ['100k', '0.1M', '99k', '2M', '100G', '101G', '2M/s', '1Mbit'].map((text) => BYTE_COUNT.parse(text)),
    [100_000, 100_000, undefined, 2_000_000, 1e11, undefined, undefined, undefined],
  )
})

test('bytes for people are exact', () => {
  assert.deepEqual([1_000, 1_234, 1_500_000, 10_000_000, 1e11, 999, 1_234_567].map(formatBytes), [
    '1k',
    '1.234k',
    '1.5M',
    '10M',
    '100G',
    '999',
    '1234.567k',
  ])
})
