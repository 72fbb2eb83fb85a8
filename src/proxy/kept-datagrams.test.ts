import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KeptDatagrams } from './kept-datagrams.ts'

test('what is kept of a client is a copy, and bounded in datagrams and in bytes', () => {
  const slot = new Uint8Array(1_200).fill(1)
  const many = new KeptDatagrams()
  for (let kept = 0; kept < 8; kept++) assert.equal(many.keep(slot), true)
  assert.equal(many.keep(slot.subarray(0, 1)), false)
  slot.fill(2)
  assert.deepEqual(many.all, Array(8).fill(new Uint8Array(1_200).fill(1)))
  assert.equal(many.bytes, 8 * 1_200)

  const large = new KeptDatagrams()
  assert.equal(large.keep(new Uint8Array(16_000)), true)
  assert.equal(large.keep(new Uint8Array(385)), false)
  assert.equal(large.keep(new Uint8Array(384)), true)
})
