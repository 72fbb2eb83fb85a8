import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answer } from './dns-responder.ts'

/** A question with an EDNS record behind it. */
function question(name: string, type: number): Buffer {
  const labels = name.split('.').map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label)]))
  const header = Buffer.from('abcd01000001000000000001', 'hex')
  const end = Buffer.of(0, 0, type, 0, 1)
  return Buffer.concat([header, ...labels, end, Buffer.from('0000290200000000000000', 'hex'), Buffer.alloc(64)])
}

test('a question for an address is answered, with the same id and a TTL by its name', () => {
  for (const [name, ttl] of [
    ['c1.example', 3600],
    ['f1.example', 0],
  ] as const) {
    const bytes = question(name, 1)
    const asked = bytes.length - 64
    const length = answer(bytes, asked)
    assert.equal(bytes.readUInt16BE(0), 0xabcd)
    assert.equal(bytes.toString('hex', 2, 12), '85000001000100000000')
    assert.equal(length, asked - 11 + 16)
    assert.equal(bytes.readUInt32BE(length - 10), ttl)
    assert.deepEqual([...bytes.subarray(length - 4, length)], [192, 0, 2, 1])
  }
})

test('other types have no answer; what is no question gets none', () => {
  const bytes = question('c1.example', 28)
  assert.equal(answer(bytes, bytes.length - 64), 12 + 12 + 4)
  assert.equal(bytes.readUInt16BE(6), 0)
  assert.equal(answer(bytes, bytes.length - 64), 0) // now it is an answer
  assert.equal(answer(Buffer.alloc(512), 11), 0)
  assert.equal(answer(Buffer.alloc(512, 0xff), 512), 0)
})
