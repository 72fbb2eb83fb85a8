import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FlowRecord } from '../proxy/record.ts'
import { flowJson } from '../proxy/record-json.ts'
import { colourOf } from './colour.ts'
import { flowLineFormat } from './flow-line.ts'

const PLAIN = colourOf({})
const RECORD: FlowRecord = {
  id: 1,
  listener: 'web',
  protocol: 'tcp',
  client: { address: '10.0.3.1', port: 40_000 },
  originalDst: { address: '10.0.4.2', port: 80 },
  rule: undefined,
  shadow: undefined,
  front: undefined,
  detected: undefined,
  host: undefined,
  hostChecked: undefined,
  upstream: { address: '10.0.4.2', port: 80 },
  sourceAddr: { address: '10.0.3.1', port: 40_001 },
  source: 'client',
  bytesClientToUpstream: 1,
  bytesUpstreamToClient: 2,
  name: undefined,
  datagrams: undefined,
  startedAt: 1_700_000_000_000,
  dialMs: 1.234_567_8,
  durationMs: 20.000_000_1,
  reason: 'closed',
  error: undefined,
  refused: false,
}

test('a flow line names the listener where there are several', () => {
  assert.match(flowLineFormat(PLAIN, { listener: true })(RECORD), /^#1 {2}web {2}10\.0\.3\.1:40000 → /)
  assert.match(flowLineFormat(PLAIN, { listener: false })(RECORD), /^#1 {2}10\.0\.3\.1:40000 → /)
})

test('durations in JSON end with the microseconds', () => {
  const { dialMs, durationMs, client } = JSON.parse(flowJson(RECORD)) as FlowRecord
  assert.deepEqual({ dialMs, durationMs, client }, { dialMs: 1.235, durationMs: 20, client: RECORD.client })
})

test('where a policy looked or decided, the line ends with what it saw and its rule', () => {
  const decided = { ...RECORD, detected: 'tls', host: 'www.example.org', rule: 'blocked', reason: 'policy' } as const
  assert.match(flowLineFormat(PLAIN, { listener: false })(decided), /policy {2}tls www\.example\.org {2}rule blocked$/)
  assert.match(flowLineFormat(PLAIN, { listener: false })(RECORD), /closed$/)
})
