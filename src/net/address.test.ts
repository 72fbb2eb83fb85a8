import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import {
  addressBytes,
  addressOfBytes,
  formatEndpoint,
  isNeverForeign,
  parseAddress,
  parseEndpoint,
  parsePort,
  putAddress,
} from './address.ts'
import { isAllPorts, parsePortRange, portsContain } from './ports.ts'
import { formatPrefix, networkOf, parsePrefix, prefixContains } from './prefix.ts'

test('an address is written in one way: RFC 5952, and IPv4-mapped IPv6 as IPv4', () => {
  assert.equal(parseAddress('FD00:3:0:0:0:0:0:1'), 'fd00:3::1')
  assert.equal(parseAddress('::ffff:10.0.0.1'), '10.0.0.1')
  assert.equal(parseAddress('10.0.3.1'), '10.0.3.1')
})

test('the text of an address is what another implementation writes', () => {
  const word = fc.oneof(fc.constant(0), fc.constant(0xffff), fc.integer({ min: 0, max: 0xffff }))
  fc.assert(
    fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), (words) => {
      const bytes = words.flatMap((value) => [value >> 8, value & 0xff])
      const other = new ipaddr.IPv6(bytes)
      const expected = other.isIPv4MappedAddress() ? other.toIPv4Address().toString() : other.toRFC5952String()
      assert.equal(addressOfBytes(bytes), expected)
      assert.equal(addressOfBytes(bytes.slice(0, 4)), ipaddr.fromByteArray(bytes.slice(0, 4)).toString())
      assert.equal(parseAddress(words.map((value) => value.toString(16)).join(':')), expected)
    }),
  )
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.integer({ min: 0, max: 300 }).map(String), fc.constantFrom('', '00', '01', '1 ')), {
        minLength: 3,
        maxLength: 5,
      }),
      (parts) => {
        const text = parts.join('.')
        assert.equal(parseAddress(text), ipaddr.IPv4.isValidFourPartDecimal(text) ? text : undefined, text)
      },
    ),
  )
})

test('what is not an IP literal is not an address', () => {
  for (const text of ['', '10.1', '010.0.0.1', '1.2.3.4.5', '256.1.1.1', 'fe80::1%eth0', 'localhost', '12345', ':::']) {
    assert.equal(parseAddress(text), undefined, text)
  }
})

test('an endpoint survives being written and read', () => {
  const endpoint = fc.record(
    {
      address: fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => parseAddress(text) ?? '::1'),
      port: fc.integer({ min: 0, max: 65_535 }),
    },
    { noNullPrototype: true },
  )
  fc.assert(fc.property(endpoint, (value) => assert.deepEqual(parseEndpoint(formatEndpoint(value)), value)))
})

test('the bytes of an address are the same by both ways', () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => parseAddress(text) ?? '::')
  const put = (text: string): number[] => {
    const bytes = new Uint8Array(20).fill(0xee)
    putAddress(text, bytes, 2)
    return [...bytes]
  }
  fc.assert(
    fc.property(address, (text) => {
      const expected = new Uint8Array(20).fill(0xee)
      expected.set(addressBytes(text), 2)
      assert.deepEqual(put(text), [...expected], text)
    }),
  )
  for (const text of ['::', '::1', '1::', 'fd00:4::2', '1:2:3:4:5:6:7:8', '0:0:1::']) {
    assert.deepEqual(put(text).slice(2, 18), [...addressBytes(text)], text)
  }
})

test('a port is a decimal number up to 65535', () => {
  assert.equal(parsePort('443'), 443)
  for (const text of ['0', '65536', '70000', '-1', '8o', '', '1e3', ' 80'])
    assert.equal(parsePort(text), undefined, text)
})

test('a prefix with host bits is refused, a bare address is its full length', () => {
  assert.equal(parsePrefix('10.0.3.1/24'), undefined)
  assert.equal(parsePrefix('10.0.0.0/33'), undefined)
  assert.equal(formatPrefix(parsePrefix('10.0.3.0/24')!), '10.0.3.0/24')
  assert.equal(formatPrefix(parsePrefix('fd00::')!), 'fd00::/128')
})

test('a prefix contains an address exactly when their network parts are equal', () => {
  fc.assert(
    fc.property(fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 }), (a, b, length) => {
      const bits = (address: string): string =>
        address
          .split('.')
          .map((part) => Number(part).toString(2).padStart(8, '0'))
          .join('')
      const prefix = parsePrefix(`${networkOf(a, length)}/${length}`)!
      assert.equal(prefixContains(prefix, b), bits(a).slice(0, length) === bits(b).slice(0, length))
    }),
  )
  assert.equal(prefixContains(parsePrefix('fd00::/15')!, 'fd01::1'), true)
  assert.equal(prefixContains(parsePrefix('fd00::/16')!, 'fd01::1'), false)
  assert.equal(prefixContains(parsePrefix('0.0.0.0/0')!, '::1'), false)
})

test('loopback, multicast, reserved and unspecified addresses are nobody else’s', () => {
  for (const address of ['127.0.0.1', '127.9.9.9', '0.0.0.0', '224.0.0.1', '255.255.255.255', '::', '::1', 'ff02::1']) {
    assert.equal(isNeverForeign(address), true, address)
  }
  for (const address of ['10.0.3.1', '223.255.255.255', 'fd00::1', 'fe80::1'])
    assert.equal(isNeverForeign(address), false)
})

test('a port range runs forwards and within 1–65535', () => {
  assert.deepEqual(parsePortRange('8000-8100'), { from: 8000, to: 8100 })
  assert.deepEqual(parsePortRange('443'), { from: 443, to: 443 })
  for (const text of ['9-8', '0-10', '1-70000', '1-2-3', '-', 'x']) assert.equal(parsePortRange(text), undefined, text)
  assert.equal(portsContain([{ from: 80, to: 90 }], 90), true)
  assert.equal(portsContain([{ from: 80, to: 90 }], 91), false)
  assert.equal(isAllPorts([{ from: 1, to: 65_535 }]), true)
})
