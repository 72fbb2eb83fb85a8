import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseAddress } from '../net/address.ts'
import { decodeSockaddr, encodeSockaddr } from './sockaddr.ts'

test('any endpoint survives the way into a sockaddr and back, in canonical text', () => {
  const endpoint = fc.record(
    {
      address: fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => parseAddress(text) ?? '::1'),
      port: fc.integer({ min: 0, max: 65_535 }),
    },
    { noNullPrototype: true },
  )
  fc.assert(fc.property(endpoint, (value) => assert.deepEqual(decodeSockaddr(encodeSockaddr(value)), value)))
})

test('two addresses that follow each other in every place are told apart, also when they are seen again', () => {
  const many = Array.from({ length: 5_000 }, (_, i) => [
    `10.${i >> 8}.${i & 255}.7`,
    `fd00:${(i + 1).toString(16)}::1`,
  ]).flat()
  for (const address of [...many, '0.0.0.0', '::', ...many]) {
    assert.equal(decodeSockaddr(encodeSockaddr({ address, port: 1 })).address, address)
  }
})

test('the port is in network order at byte 2, the address behind it', () => {
  assert.deepEqual([...encodeSockaddr({ address: '10.0.4.2', port: 80 })].slice(2, 8), [0, 80, 10, 0, 4, 2])
  assert.equal(encodeSockaddr({ address: 'fd00:4::2', port: 80 }).length, 28)
})
