import assert from 'node:assert/strict'
import { type FuzzSubject, probeOutcome } from './fuzz.fixture.ts'
import { probeProxyProtocol } from './proxy-protocol.ts'
import { proxyV1, proxyV2, proxyV2Local } from './proxy-protocol-write.ts'

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

/** What HAProxy 2.6 sent on loopback with `send-proxy`, `send-proxy-v2`, and that with `crc32c,unique-id`. */
export const CAPTURED = {
  v1: Uint8Array.from(Buffer.from('PROXY TCP4 127.0.0.1 127.0.0.1 58426 39025\r\n')),
  v2: fromHex('0d0a0d0a000d0a515549540a2111000c7f0000017f000001c3b6706b'),
  v2Sum: fromHex(
    '0d0a0d0a000d0a515549540a211100237f0000017f00000181585d470300047138fa2205000d37463030303030313a38313538',
  ),
} as const

const FLOW = { client: { address: '2001:db8::1', port: 4000 }, originalDst: { address: '2001:db8::2', port: 443 } }

export const subject: FuzzSubject<ReturnType<typeof probeProxyProtocol>> = {
  name: 'proxy-protocol',
  samples: [
    ...Object.values(CAPTURED),
    proxyV1(FLOW),
    proxyV2(FLOW, { tlvs: [{ type: 2, value: Buffer.from('www.example.org') }], checksum: true }),
    proxyV2Local(),
    Uint8Array.from(Buffer.from('PROXY UNKNOWN\r\n')),
  ],
  parse: probeProxyProtocol,
  mostBytes: 131_072,
  read(bytes, answer) {
    if (answer.kind === 'match') {
      const { length, client, originalDst, tlvs } = answer.finding
      assert.ok(length <= bytes.length && (client === undefined) === (originalDst === undefined))
      assert.ok(tlvs.reduce((sum, { value }) => sum + 3 + value.length, 0) < length)
    }
    return probeOutcome(probeProxyProtocol, bytes, answer)
  },
}
