import assert from 'node:assert/strict'
import { test } from 'node:test'
import { internetChecksum } from './internet-checksum.ts'

test('the example of RFC 1071 §3 sums up as there', () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7)
  assert.equal(internetChecksum([bytes]), ~0xddf2 & 0xffff)
  assert.equal(internetChecksum([bytes.subarray(0, 4), bytes.subarray(4)]), ~0xddf2 & 0xffff)
})

test('an odd last byte is the high half of a word, and what holds its own checksum sums up to nothing', () => {
  assert.equal(internetChecksum([Uint8Array.of(0x12)]), ~0x1200 & 0xffff)
  const message = Uint8Array.of(0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 3, 1, 10, 0, 4, 2)
  const sum = internetChecksum([message])
  message.set([sum >> 8, sum & 0xff], 10)
  assert.equal(internetChecksum([message]), 0)
})

test('the largest datagram does not overflow the sum', () => {
  assert.equal(internetChecksum([new Uint8Array(65_534).fill(0xff)]), 0)
})
