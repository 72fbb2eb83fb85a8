import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkedSummary } from './wrk.ts'

const load = { connections: 2, responseBytes: 200 }
const output = (requests: number, bytes: number, errors: number): string =>
  `Running 1s test\nsummary {"requests":${requests},"bytes":${bytes},"seconds":1.0,"errors":${errors},"p50Ms":1.0,"p99Ms":2.0}\n`

test('a run whose bytes are those of its responses is taken', () => {
  assert.deepEqual(checkedSummary(output(10, 2_100, 0), load), {
    requests: 10,
    bytes: 2_100,
    seconds: 1,
    p50Ms: 1,
    p99Ms: 2,
  })
})

test('failed requests, lost bytes and a missing summary are no figures', () => {
  assert.throws(() => checkedSummary(output(10, 2_000, 1), load), /1 of 10 requests failed/)
  assert.throws(() => checkedSummary(output(10, 1_000, 0), load), /1000 bytes in 10 responses/)
  assert.throws(() => checkedSummary('unable to connect', load), /no summary/)
})
