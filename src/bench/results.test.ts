import assert from 'node:assert/strict'
import { test } from 'node:test'
import { limitNotes } from './report.ts'
import { rowsOf, type Samples, tableOf } from './results.ts'
import { type Case, KERNEL, rateIn, type Sample, type Suite } from './suite.ts'

const LATENCY: Case = {
  name: 'latency',
  title: 'latency',
  figures: [
    {
      unit: 'ms added',
      better: 'less',
      isCompared: true,
      of: ({ rate }, kernel) => (kernel === undefined ? undefined : rate - kernel.rate),
    },
    rateIn('requests/s'),
  ],
  without: [],
  measure: () => Promise.reject(new Error('not here')),
}
const subject = (name: string) => ({ name, raise: () => Promise.reject(new Error('not here')) })
const SUITE: Suite = {
  name: 'tcp',
  subjects: ['limpid', 'haproxy', KERNEL].map(subject),
  comparisons: [['limpid', 'haproxy']],
  cases: [LATENCY],
}
const rates = (...all: number[]): Sample[] => all.map((rate) => ({ rate, cost: undefined, busy: undefined }))

test('a figure that is on top of forwarding’s takes that of the same round', () => {
  const samples: Samples = new Map([
    ['limpid', rates(11, 22, 33)],
    ['haproxy', rates(12, 24, 36)],
    [KERNEL, rates(10, 20, 30)],
  ])
  const [added] = rowsOf(SUITE, LATENCY, samples)
  assert.deepEqual(added!.values, { limpid: [1, 2, 3], haproxy: [2, 4, 6] })
  assert.deepEqual(added!.ratios, { 'limpid ÷ haproxy': { ofMedians: 0.5, min: 0.5, max: 0.5 } })
})

test('without forwarding it is not measured, and the table has no number for it', () => {
  const rows = rowsOf(SUITE, LATENCY, new Map([['limpid', rates(11)]]))
  assert.deepEqual(rows[0]!.values, {})
  assert.match(tableOf(SUITE, rows), /\| ms added +\| +– \|/)
})

test('a proxy that is nearly as fast as forwarding is told: the ends are the limit there', () => {
  const rowsWith = (limpid: number) =>
    rowsOf(
      SUITE,
      LATENCY,
      new Map([
        ['limpid', rates(limpid)],
        [KERNEL, rates(100)],
      ]),
    )
  assert.deepEqual(limitNotes(SUITE, rowsWith(89)), [])
  assert.match(limitNotes(SUITE, rowsWith(91))[0]!, /^latency: limpid near forwarding/)
})
