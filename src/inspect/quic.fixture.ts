import { createCipheriv } from 'node:crypto'
import type { Probed } from './probe.ts'
import * as captures from './quic-captures.fixture.ts'
import { QuicConnection } from './quic-connection.ts'
import { MAX_CRYPTO_BYTES } from './quic-crypto-stream.ts'
import { type LongHeader, readLongHeader } from './quic-header.ts'
import { looksLikeQuicInitial, type QuicFinding, QuicHello } from './quic-initial.ts'
import { clientInitialKeys } from './quic-keys.ts'
import { type LongPacket, type QuicVersion, quicVersion } from './quic-version.ts'

export const V1 = quicVersion(1)!
export const V2 = quicVersion(0x6b33_43cf)!
/** Of the client in RFC 9001 appendix A and RFC 9369 appendix A. */
export const RFC_DCID = Buffer.from('8394c8f03e515708', 'hex')
/** Its ClientHello, for example.com: RFC 9001 appendix A.2. */
export const RFC_HELLO = Buffer.from(
  '010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010000e' +
    '00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026' +
    '0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e04030503' +
    '06030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff08011001048000' +
    '75300901100f088394c8f03e51570806048000ffff',
  'hex',
)

/** RFC 9000 §16, in as many bytes as asked for or needed. */
export function integer(value: number, bytes = value < 64 ? 1 : value < 16_384 ? 2 : 4): Buffer {
  const out = Buffer.alloc(bytes)
  out.writeUIntBE(value, Math.max(0, bytes - 6), Math.min(6, bytes))
  out[0] = out[0]! | (Math.log2(bytes) << 6)
  return out
}

export function crypto(data: Uint8Array, offset = 0): Buffer {
  return Buffer.concat([Buffer.from([0x06]), integer(offset), integer(data.length), data])
}

export interface SealOptions {
  readonly version?: QuicVersion
  readonly type?: LongPacket
  readonly dcid?: Uint8Array
  readonly scid?: Uint8Array
  /** The connection id that the keys are from, where it is not `dcid`. */
  readonly keysOf?: Uint8Array
  readonly keyVersion?: QuicVersion
  readonly token?: Uint8Array
  readonly number?: number
  readonly numberBytes?: 1 | 2 | 3 | 4
  /** Of the packet: frames are followed by padding. 0: no padding. */
  readonly size?: number
  readonly reserved?: number
  readonly fixedBit?: number
}

/** A client's packet, protected with the keys of an Initial: RFC 9000 §17.2, RFC 9001 §5. */
export function sealed(frames: Uint8Array, options: SealOptions = {}): Buffer {
  const { version = V1, type = 'initial', dcid = RFC_DCID, scid = Buffer.alloc(0), token = Buffer.alloc(0) } = options
  const { number = 0, numberBytes = 1, size = 1200, reserved = 0, fixedBit = 0x40 } = options
  const keys = clientInitialKeys(options.keyVersion ?? version, options.keysOf ?? dcid)
  const first = 0x80 | fixedBit | (version.types.indexOf(type) << 4) | reserved | (numberBytes - 1)
  const start = Buffer.concat([Buffer.from([first]), integerOf32(version.id), sized(dcid), sized(scid)])
  const tokens = type === 'initial' ? Buffer.concat([integer(token.length), token]) : Buffer.alloc(0)
  const lengthBytes = Math.max(size, frames.length + 64) < 16_384 ? 2 : 4
  const other = start.length + tokens.length + lengthBytes + numberBytes + 16 // with the tag
  const payload = Buffer.concat([frames, Buffer.alloc(Math.max(0, size - other - frames.length))])
  const length = integer(numberBytes + payload.length + 16, lengthBytes)
  const numberText = Buffer.alloc(8)
  numberText.writeBigUInt64BE(BigInt(number))
  const head = Buffer.concat([start, tokens, length, numberText.subarray(8 - numberBytes)])
  const nonce = Buffer.from(keys.iv)
  for (let i = 0; i < 8; i++) nonce[4 + i]! ^= numberText[i]!
  const cipher = createCipheriv('aes-128-gcm', keys.key, nonce).setAAD(head)
  const packet = Buffer.concat([head, cipher.update(payload), cipher.final(), cipher.getAuthTag()])
  const numberAt = head.length - numberBytes
  const mask = createCipheriv('aes-128-ecb', keys.hp, null).update(packet.subarray(numberAt + 4, numberAt + 20))
  packet[0]! ^= mask[0]! & 0x0f
  for (let i = 0; i < numberBytes; i++) packet[numberAt + i]! ^= mask[1 + i]!
  return packet
}

function sized(id: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([id.length]), id])
}

function integerOf32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}

/** The frames of a datagram's first packet. */
export function framesOf(datagram: Uint8Array): Uint8Array {
  const header = readLongHeader(datagram, 0) as LongHeader
  const dcid = datagram.subarray(header.dcidAt, header.dcidEnd)
  const packet = new QuicConnection(header.version, dcid).open(datagram, header)
  if (packet === undefined) throw new Error('the first packet is no Initial')
  return packet.payload
}

/** What is said after each datagram: `more 1987`, `1 example.com`, `no`, or why it is malformed. */
export function said(...datagrams: readonly Uint8Array[]): string[] {
  const hello = new QuicHello()
  return datagrams.map((datagram) => inWords(hello.add(datagram)))
}

export function inWords(answer: Probed<QuicFinding>): string {
  if (answer.kind === 'match') return `${answer.finding.version.toString(16)} ${answer.finding.serverName}`
  if (answer.kind === 'more') return `more ${answer.atLeast}`
  return answer.kind === 'malformed' ? answer.why : 'no'
}

export const OTHER_DCID = Buffer.from('0102030405060708090a', 'hex')
export const FOUND = '1 example.com'
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/** The RFC's hello, asking for another name of the same length. */
export const OTHER_HELLO = Buffer.from(
  hex(RFC_HELLO).replace(hex(Buffer.from('example')), hex(Buffer.from('another'))),
  'hex',
)

const SEALED = sealed(crypto(RFC_HELLO))
const FRAMES = Buffer.concat([
  Buffer.from([0x02, 5, 0, 1, 0, 0, 1, 0x03, 0, 0, 0, 0, 1, 2, 3]), // acknowledgements
  crypto(RFC_HELLO.subarray(100), 100),
  Buffer.from([1, 0, 0]),
  crypto(RFC_HELLO.subarray(0, 120)),
  Buffer.from([0x1c, 10, 6, 2, 104, 105]), // closed
])

/**
 * Each input is read as a datagram, and, since damaged datagrams do not authenticate, as the frames of a packet that did.
 */
export const subject = {
  name: 'quic',
  samples: [
    ...captures.CHROMIUM,
    ...captures.CHROMIUM_V2,
    ...captures.NGTCP2_NEGOTIATED,
    ...captures.NGTCP2_RESUMED,
    Buffer.concat([sealed(crypto(RFC_HELLO), { size: 0 }), SEALED]),
    sealed(crypto(Buffer.concat([RFC_HELLO, OTHER_HELLO]))), // malformed
    FRAMES,
    crypto(RFC_HELLO),
    framesOf(captures.CHROMIUM[0]!),
    framesOf(captures.NGTCP2[0]!),
  ] as readonly Uint8Array[],
  parse: bothWays,
  mostBytes: 262_144,
  read(bytes: Uint8Array, { hello, answer, connection, why }: QuicAnswer): string {
    const again = hello.add(bytes)
    if (answer.kind !== again.kind) throw new Error(`${answer.kind}, then ${again.kind}`)
    if (answer.kind === 'match' && answer.finding.hello !== undefined && !looksLikeQuicInitial(bytes)) {
      throw new Error('a hello in what does not look like an Initial')
    }
    if (connection.wanted > MAX_CRYPTO_BYTES && why === undefined) throw new Error(`${connection.wanted} bytes wanted`)
    const frames = why?.replaceAll(/\d+/g, 'N') ?? (connection.hello === undefined ? 'more' : 'hello')
    return `${answer.kind}, ${frames}`
  },
}

type QuicAnswer = ReturnType<typeof bothWays>

function bothWays(bytes: Uint8Array) {
  const hello = new QuicHello()
  const answer = hello.add(bytes)
  const connection = new QuicConnection(V1, RFC_DCID)
  const why = connection.read({ number: 0, reserved: 0, payload: bytes })
  return { hello, answer, connection, why }
}
