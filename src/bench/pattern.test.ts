import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bulkPattern, PatternCheck } from './pattern.ts'

test('a stream of patterns matches however it is cut', () => {
  const pattern = bulkPattern()
  const stream = Buffer.concat([pattern, pattern, pattern])
  const check = new PatternCheck(bulkPattern())
  for (let at = 0; at < stream.length; at += 300_000) {
    const piece = stream.subarray(at, at + 300_000)
    assert.ok(check.matches(piece, piece.length))
  }
})

test('a changed, lost or repeated byte is seen', () => {
  const pattern = bulkPattern()
  const changed = Buffer.from(pattern)
  changed[500_000]! ^= 1
  const lost = Buffer.concat([pattern.subarray(0, 65_536), pattern.subarray(65_537)])
  const repeated = Buffer.concat([pattern.subarray(0, 65_536), pattern.subarray(0, 65_536)])
  for (const bytes of [changed, lost, repeated]) {
    assert.equal(new PatternCheck(pattern).matches(bytes, bytes.length), false)
  }
})
