import assert from 'node:assert/strict'
import { canonicalHost } from '../net/host-name.ts'
import { type FuzzSubject, probeOutcome } from './fuzz.fixture.ts'
import { probeHttp2 } from './http2-preface.ts'

const PREFACE = '505249202a20485454502f322e300d0a0d0a534d0d0a0d0a'

/** What clients sent on loopback. */
export const CAPTURED = {
  curl: fromHex(
    PREFACE,
    '00001204000000000000030000006400040200000000020000000000000408000000000001ff0001',
    '00002a010500000001820485607fe47013864190f1e3c2e5f23a6ba0ab9ec9ae32db2d3b7a8825b650c3abbcf2e153032a2f2a',
  ),
  node: fromHex(PREFACE, '00000004000000000000001401050000000104022f6e418cf1e3c2e5f23a6ba0ab9ec9bf8286'),
} as const

export function fromHex(...parts: string[]): Uint8Array {
  return Uint8Array.from(Buffer.from(parts.join(''), 'hex'))
}

/** A frame of RFC 9113 §4.1. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(9 + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes.writeUInt8(type, 3)
  bytes.writeUInt8(flags, 4)
  bytes.writeUInt32BE(stream, 5)
  bytes.set(payload, 9)
  return bytes
}

const HUFFMAN_HOST = fromHex('418cf1e3c2e5f23a6ba0ab9ec9bf')

/** Preface, empty SETTINGS, and these frames. */
export function connection(...frames: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat([fromHex(PREFACE), frame(4, 0, 0, new Uint8Array()), ...frames]))
}

export const subject: FuzzSubject<ReturnType<typeof probeHttp2>> = {
  name: 'http2',
  samples: [
    ...Object.values(CAPTURED),
    connection(
      frame(6, 0, 0, new Uint8Array(8)),
      frame(1, 0x28, 1, fromHex('0200000000ff8284860000')), // padded, with a priority, and continued
      frame(9, 4, 1, HUFFMAN_HOST),
    ),
    connection(frame(1, 5, 1, fromHex('3fe11f8286844109612e6578616d706c65', '40016101624001630164bebf'))), // the dynamic table
  ],
  parse: probeHttp2,
  mostBytes: 262_144, // 16 for each byte that it looks at
  read(bytes, answer) {
    if (answer.kind === 'match') {
      const { host, address } = answer.finding
      assert.ok(host === undefined || (canonicalHost(host) === host && address === undefined))
    }
    return probeOutcome(probeHttp2, bytes, answer)
  },
}
