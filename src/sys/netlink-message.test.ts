import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  attributeOf,
  attributesIn,
  encodeBody,
  encodeByte,
  encodeMessage,
  encodeText,
  encodeU32,
  messagesIn,
  readText,
  readU32,
} from './netlink-message.ts'

const FIXED = Uint8Array.of(2, 0, 0, 0)
const BODY = encodeBody(FIXED, [encodeText(3, 'lo'), encodeU32(6, 0xfffffffe), encodeByte(21, 195)])

test('what is encoded is read back, each attribute on a boundary of four bytes', () => {
  assert.equal(BODY.length, 4 + 8 + 8 + 8)
  const found = new Map(attributesIn(BODY, FIXED.length))
  assert.deepEqual([...found.keys()], [3, 6, 21])
  assert.equal(readText(found.get(3)!), 'lo')
  assert.equal(readU32(found.get(6)!, 0), 0xfffffffe)
  assert.deepEqual([...attributeOf(BODY, 4, 21)!], [195])
  assert.equal(attributeOf(BODY, 4, 99), undefined)
})

test('a datagram with several messages gives them all', () => {
  const datagram = Buffer.concat([encodeMessage(32, 1, 7, BODY), encodeMessage(33, 0, 8, FIXED)])
  assert.deepEqual(
    [...messagesIn(datagram)].map(({ type, flags, body }) => [type, flags, body.length]),
    [
      [32, 1, BODY.length],
      [33, 0, 4],
    ],
  )
})

test('cut short anywhere, a message is left out and nothing throws', () => {
  const message = encodeMessage(32, 0, 1, BODY)
  for (let length = 0; length < message.length; length++) {
    assert.deepEqual([...messagesIn(message.subarray(0, length))], [])
  }
  for (let length = 0; length < BODY.length - 3; length++) {
    assert.ok([...attributesIn(BODY.subarray(0, length), 4)].length < 3)
  }
})

test('a length of zero does not make a reader turn for ever', () => {
  assert.deepEqual([...messagesIn(new Uint8Array(64))], [])
  assert.deepEqual([...attributesIn(new Uint8Array(64), 4)], [])
})
