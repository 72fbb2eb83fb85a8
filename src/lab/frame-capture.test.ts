import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lineOf, parseFrame } from './frame-capture.ts'

const ETHERNET = '0200000000010200000000020800'
const UDP = '14b4003500200000' // 5300 → 53, 8 + 24 bytes

test('a datagram is shown as tcpdump -nq does, IPv4 and IPv6', () => {
  const ipv4 = `${ETHERNET}45000034000040004011000001020304c6290004${UDP}`
  assert.equal(lineOf(parseFrame(bytes(ipv4))), 'IP 1.2.3.4.5300 > 198.41.0.4.53: UDP, length 24')
  const addresses = `20010db8000100020000000000030004${'20010db8019800410000000000000004'}`
  const ipv6 = `${ETHERNET.slice(0, -4)}86dd6000000000201140${addresses}${UDP}`
  assert.equal(lineOf(parseFrame(bytes(ipv6))), 'IP6 2001:db8:1:2::3:4.5300 > 2001:db8:198:41::4.53: UDP, length 24')
})

test('what is no datagram has no line', () => {
  const tcp = `${ETHERNET}450000280000400040060000010203040a000402${'0050c0000000000000000000500200000000'}0000`
  const frame = parseFrame(bytes(tcp))
  assert.deepEqual([frame.protocol, frame.sourcePort, lineOf(frame)], ['tcp', 80, undefined])
  assert.equal(lineOf(parseFrame(bytes(`${ETHERNET.slice(0, -4)}0806${'00'.repeat(28)}`))), undefined)
})

function bytes(hex: string): Buffer {
  return Buffer.from(hex, 'hex')
}
