import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseAddress } from '../net/address.ts'
import { crc32c } from './crc32c.ts'
import { outcomeOf } from './fuzz.fixture.ts'
import { CAPTURED, subject } from './proxy-protocol.fixture.ts'
import { type ProxyHeader, probeProxyProtocol, SIGNATURE_V2 } from './proxy-protocol.ts'
import { proxyV1, proxyV2, proxyV2Local } from './proxy-protocol-write.ts'

function matched(bytes: Uint8Array): ProxyHeader {
  const answer = probeProxyProtocol(bytes)
  assert.equal(answer.kind, 'match', JSON.stringify(answer))
  return (answer as { finding: ProxyHeader }).finding
}

function why(bytes: Uint8Array): string {
  const answer = probeProxyProtocol(bytes)
  return answer.kind === 'malformed' ? answer.why : answer.kind
}

const line = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const v2 = (...bytes: number[]): Uint8Array => Uint8Array.of(...SIGNATURE_V2, ...bytes)
const IPV4 = [10, 0, 0, 1, 10, 0, 0, 2, 0x10, 0, 1, 0xbb]
const CLIENT = { address: '10.0.0.1', port: 4096 }
const SERVER = { address: '10.0.0.2', port: 443 }

test('what HAProxy sends is read', () => {
  const loopback = (port: number): object => ({ address: '127.0.0.1', port })
  assert.deepEqual(matched(CAPTURED.v1), {
    ...{ protocol: 'proxy-protocol', version: 1, command: 'proxy', transport: 'tcp' },
    ...{ client: loopback(58_426), originalDst: loopback(39_025), tlvs: [], length: 44 },
  })
  assert.deepEqual(matched(CAPTURED.v2), {
    ...{ protocol: 'proxy-protocol', version: 2, command: 'proxy', transport: 'tcp' },
    ...{ client: loopback(0xc3b6), originalDst: loopback(0x706b), tlvs: [], length: 28 },
  })
  const { tlvs, length } = matched(CAPTURED.v2Sum)
  assert.deepEqual(
    tlvs.map(({ type }) => type),
    [3, 5],
  )
  assert.equal(Buffer.from(tlvs[1]!.value).toString(), '7F000001:8158')
  assert.equal(length, CAPTURED.v2Sum.length)
})

test('CRC-32C is that of RFC 3720 B.4', () => {
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa)
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43)
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
})

test('every prefix asks for more, and what the client sends behind it changes nothing', () => {
  for (const bytes of subject.samples) {
    for (let length = 0; length < bytes.length; length++) {
      const answer = probeProxyProtocol(bytes.subarray(0, length))
      assert.ok(answer.kind === 'more' && answer.atLeast > length && answer.atLeast <= bytes.length, `${length}`)
    }
    assert.equal(matched(bytes).length, bytes.length)
    assert.deepEqual(probeProxyProtocol(Buffer.concat([bytes, line('GET / HTTP/1.1\r\n')])), probeProxyProtocol(bytes))
  }
})

test('what is written is read', () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => parseAddress(text) ?? '::1')
  const endpoint = fc.record({ address, port: fc.nat(65_535) }, { noNullPrototype: true })
  const type = fc.integer({ min: 0, max: 255 }).filter((value) => ![3, 4, 5].includes(value))
  const tlv = fc.record({ type, value: fc.uint8Array({ maxLength: 200 }) }, { noNullPrototype: true })
  fc.assert(
    fc.property(
      endpoint,
      endpoint,
      fc.array(tlv, { maxLength: 5 }),
      fc.boolean(),
      (client, originalDst, tlvs, checksum) => {
        const flow = { client, originalDst }
        const first = matched(proxyV1(flow))
        assert.deepEqual([first.client, first.originalDst, first.transport], [client, originalDst, 'tcp'])
        const second = matched(proxyV2(flow, { transport: 'udp', tlvs, checksum }))
        assert.deepEqual([second.client, second.originalDst, second.transport], [client, originalDst, 'udp'])
        assert.deepEqual(
          second.tlvs.filter((one) => one.type !== 3),
          tlvs,
        )
        assert.equal(second.tlvs.length, tlvs.length + (checksum ? 1 : 0))
      },
    ),
  )
})

test('headers without addresses leave those of the connection', () => {
  for (const [bytes, command] of [
    [line('PROXY UNKNOWN\r\n'), 'proxy'],
    [line('PROXY UNKNOWN ffff::1 any thing 1 2\r\n'), 'proxy'],
    [proxyV2Local(), 'local'],
    [v2(0x20, 0xff, 0, 3, 1, 2, 3), 'local'], // whose family is ignored
    [v2(0x21, 0, 0, 3, 1, 2, 3), 'proxy'],
    [v2(0x21, 0x10, 0, 12, ...IPV4), 'proxy'],
    [v2(0x21, 0x31, 0, 216, ...new Uint8Array(216)), 'proxy'],
  ] as const) {
    const finding = matched(bytes)
    assert.deepEqual([finding.command, finding.client, finding.originalDst], [command, undefined, undefined])
    assert.equal(finding.length, bytes.length)
  }
})

test('an address that was mapped into IPv6 comes back as IPv4', () => {
  const bytes = proxyV2({ client: CLIENT, originalDst: { address: '2001:db8::1', port: 1 } })
  assert.equal(bytes.length, 16 + 36)
  assert.deepEqual(matched(bytes).client, CLIENT)
  assert.equal(
    Buffer.from(proxyV1({ client: CLIENT, originalDst: SERVER })).toString(),
    'PROXY TCP4 10.0.0.1 10.0.0.2 4096 443\r\n',
  )
})

test('lines that are not exactly as specified are malformed', () => {
  for (const text of [
    'PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n',
    'PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n',
    'PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n',
    'PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n',
    'PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n',
    'PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n',
    'PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n',
    'PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n',
    'PROXY TCP4 ::1 ::2 1 2\r\n',
    'PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n',
    'PROXY TCP6 1::2::3 ::2 1 2\r\n',
    'PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n',
    'PROXY UNKNOWNX\r\n',
    'PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n',
    'PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n',
    `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`, // 108 bytes
    `PROXY ${'x'.repeat(200)}`,
  ]) {
    assert.equal(probeProxyProtocol(line(text)).kind, 'malformed', text)
  }
  assert.equal(why(line(`PROXY UNKNOWN ${'x'.repeat(91)}\r\n`)), 'match')
  for (const text of ['GET ', 'proxy ', 'PROXYx', '\r\n\r\nG', 'x']) assert.equal(why(line(text)), 'no', text)
})

test('headers of version 2 that are not exactly as specified are malformed', () => {
  assert.equal(why(v2(0x11, 0x11, 0, 12, ...IPV4)), 'version is not 2')
  assert.equal(why(v2(0x22, 0x11, 0, 12, ...IPV4)), 'command is neither LOCAL nor PROXY')
  assert.equal(why(v2(0x21, 0x41, 0, 12, ...IPV4)), 'family or transport is none')
  assert.equal(why(v2(0x21, 0x13, 0, 12, ...IPV4)), 'family or transport is none')
  assert.equal(why(v2(0x21, 0x11, 0, 11, ...IPV4)), 'header is too short for its addresses')
  assert.equal(why(v2(0x21, 0x11, 0x0f, 0xf1)), 'header is longer than 4096 bytes')
  assert.equal(why(v2(0x21, 0x11, 0, 14, ...IPV4, 1, 0)), 'TLV goes beyond the header')
  assert.equal(why(v2(0x21, 0x11, 0, 16, ...IPV4, 1, 0, 2, 0)), 'TLV goes beyond the header')
  assert.equal(why(v2(0x21, 0x11, 0, 16, ...IPV4, 3, 0, 1, 0)), 'checksum is none')
  assert.equal(why(v2(0x21, 0x11, 0, 19, ...IPV4, 3, 0, 4, 1, 2, 3, 4)), 'checksum is wrong')
  assert.equal(why(v2(0x21, 0x11, 0, 144, ...IPV4, 5, 0, 129, ...new Uint8Array(129))), 'unique id is too long')
  for (let at = 16; at < CAPTURED.v2Sum.length; at++) {
    const bytes = CAPTURED.v2Sum.slice()
    bytes[at] = bytes[at]! ^ 0x10
    const isItsType = at === 28 // then there is no checksum
    assert.equal(probeProxyProtocol(bytes).kind, isItsType ? 'match' : 'malformed', `byte ${at}`)
  }
})

test('padding is not told', () => {
  assert.deepEqual(matched(v2(0x21, 0x11, 0, 17, ...IPV4, 4, 0, 2, 9, 9)).tlvs, [])
})

test('random bytes behind the signature never throw', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void outcomeOf(subject, v2(...bytes))))
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      (bytes) => void outcomeOf(subject, v2(0x21, 0x11, 0, bytes.length, ...bytes)),
    ),
  )
})
