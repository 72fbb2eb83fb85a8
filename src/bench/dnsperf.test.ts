import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readSummary } from './dnsperf.ts'

const output = (good: number, codes: string): string => `
Statistics:

  Queries sent:         1010
  Queries completed:    ${good} (99.01%)
  Queries lost:         10 (0.99%)

  Response codes:       ${codes}
  Average packet size:  request 36, response 52
  Run time (s):         2.000100
  Queries per second:   500.00
`

test('the report of dnsperf is read', () => {
  assert.deepEqual(readSummary(output(1000, 'NOERROR 1000 (100.00%)')), { answered: 1000, lost: 10, seconds: 2.0001 })
})

test('errors and silence are no figures', () => {
  assert.throws(() => readSummary(output(1000, 'NOERROR 990 (99.00%), SERVFAIL 10 (1.00%)')), /10 of 1000 answers/)
  assert.throws(() => readSummary(output(0, '')), /no answers/)
  assert.throws(() => readSummary('unable to connect'), /no answers/)
})
