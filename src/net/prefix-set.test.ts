import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { addressOfBytes } from './address.ts'
import { formatPrefix, networkOf, type Prefix, parsePrefix, prefixContains } from './prefix.ts'
import { type PrefixSet, PrefixSetBuilder } from './prefix-set.ts'

function setOf(prefixes: readonly Prefix[]): PrefixSet {
  const builder = new PrefixSetBuilder()
  for (const prefix of prefixes) builder.add(prefix)
  return builder.build()
}

const found = (set: PrefixSet, address: string): string | undefined => {
  const prefix = set.find(address)
  return prefix === undefined ? undefined : formatPrefix(prefix)
}

test('the longest prefix that holds an address is found, and the one around it behind its end', () => {
  const texts = ['10.0.0.0/8', '10.1.0.0/16', '10.1.1.0/24', '10.1.1.7', '10.2.0.0/16', 'fd00::/8', 'fd00:1::/32']
  const set = setOf(texts.map((text) => parsePrefix(text)!))
  assert.equal(found(set, '10.1.1.7'), '10.1.1.7/32')
  assert.equal(found(set, '10.1.1.8'), '10.1.1.0/24')
  assert.equal(found(set, '10.1.2.0'), '10.1.0.0/16')
  assert.equal(found(set, '10.2.0.0'), '10.2.0.0/16')
  assert.equal(found(set, '10.3.0.0'), '10.0.0.0/8')
  assert.equal(found(set, '11.0.0.0'), undefined)
  assert.equal(found(set, '9.255.255.255'), undefined)
  assert.equal(found(set, 'fd00:1::5'), 'fd00:1::/32')
  assert.equal(found(set, 'fd00:2::'), 'fd00::/8')
  assert.equal(found(set, 'fe80::1'), undefined)
  assert.equal(set.size, 7)
})

test('a prefix may be everything, or end where the addresses end', () => {
  const set = setOf(['0.0.0.0/0', '255.255.255.255', '::/0', 'ffff::/16'].map((text) => parsePrefix(text)!))
  assert.equal(found(set, '0.0.0.0'), '0.0.0.0/0')
  assert.equal(found(set, '255.255.255.255'), '255.255.255.255/32')
  assert.equal(found(set, '255.255.255.254'), '0.0.0.0/0')
  assert.equal(found(set, 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'), 'ffff::/16')
  assert.equal(found(set, '::'), '::/0')
})

test('an empty set has no address, and one of IPv4 none of IPv6', () => {
  assert.equal(setOf([]).has('10.0.0.1'), false)
  assert.equal(setOf([]).has('::1'), false)
  assert.equal(setOf([parsePrefix('0.0.0.0/0')!]).has('::'), false)
})

/** Few bytes, so that prefixes nest and addresses are in them and at their edges. */
const byte = fc.constantFrom(0, 0, 1, 0x7f, 0x80, 0xff, 0xff)
const addressOf = (bytes: number) =>
  fc.array(byte, { minLength: bytes, maxLength: bytes }).map((all) => addressOfBytes(all))
const address = fc.oneof(addressOf(4), addressOf(16))
const prefix = fc.tuple(address, fc.integer({ min: 0, max: 128 })).map(([text, bits]): Prefix => {
  const length = text.includes(':') ? bits : bits % 33
  return { family: text.includes(':') ? 6 : 4, address: networkOf(text, length), length }
})

test('a set answers as its prefixes do, tried one by one', () => {
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 60 }), fc.array(address, { maxLength: 30 }), (prefixes, addresses) => {
      const set = setOf(prefixes)
      assert.equal(set.size, new Set(prefixes.map(formatPrefix)).size)
      for (const asked of [...addresses, ...prefixes.map((one) => one.address)]) {
        const [longest] = prefixes.filter((one) => prefixContains(one, asked)).toSorted((a, b) => b.length - a.length)
        assert.deepEqual(set.find(asked), longest, asked)
        assert.equal(set.has(asked), longest !== undefined, asked)
      }
    }),
    { numRuns: 500 },
  )
})

test('100,000 prefixes take at most two ranges each', () => {
  const builder = new PrefixSetBuilder()
  for (let i = 0; i < 100_000; i++) {
    builder.add({ family: 4, address: `${i >> 16}.${(i >> 8) & 255}.${i & 255}.0`, length: 24 + (i % 2) })
    builder.add({
      family: 6,
      address: networkOf(`2001:${(i >> 8).toString(16)}:${(i & 255).toString(16)}::1`, 48),
      length: 48,
    })
  }
  const set = builder.build()
  assert.equal(set.size, 200_000)
  assert.ok(set.bytes <= 200_001 * (4 + 1) + 200_001 * (16 + 1), `${set.bytes}`)
  assert.equal(found(set, '1.2.3.127'), set.has('1.2.3.127') ? '1.2.3.0/25' : undefined)
})
