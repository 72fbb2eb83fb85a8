import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { FlowRecord } from './record.ts'
import { flowJson } from './record-json.ts'

const BARE = { id: 1, dialMs: 0, durationMs: 0 } as FlowRecord
const NO_TEXT = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/u

test('T20: whatever a host or an error has in it, a record is one line without control characters, and reads back', () => {
  const nasty = 'a\r\nb{"id":2}\u001b[2J\u009b31m\u007f\u2028\u2029\u202eexe.\u0000'
  for (const text of [nasty, '\n', '"', '\\']) {
    const json = flowJson({ ...BARE, host: text, error: text }, 'gw-1')
    assert.doesNotMatch(json, NO_TEXT)
    const { gateway, host, error } = JSON.parse(json) as FlowRecord & { gateway: string }
    assert.deepEqual([gateway, host, error], ['gw-1', text, text])
  }
})

test('so with any text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (host) => {
      const json = flowJson({ ...BARE, host })
      assert.doesNotMatch(json, NO_TEXT)
      assert.equal((JSON.parse(json) as FlowRecord).host, host)
    }),
  )
})
