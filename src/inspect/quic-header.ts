import { varint, varintEnd } from './quic-varint.ts'
import { type LongPacket, type QuicVersion, quicVersion } from './quic-version.ts'

const VERSION_AT = 1
const DCID_LENGTH_AT = 5
const MAX_CONNECTION_ID_BYTES = 20 // RFC 9000 §17.2
const LONG_HEADER = 0x80
const FIXED_BIT = 0x40

/** Header of one packet in a datagram. Positions are from the datagram's first byte. */
export interface LongHeader {
  readonly version: QuicVersion
  readonly type: LongPacket
  readonly at: number
  readonly dcidAt: number
  readonly dcidEnd: number
  /** 0 where there is none. */
  readonly tokenBytes: number
  /** The packet number, masked: what is protected begins here. */
  readonly numberAt: number
  /** Behind the packet: the next one of the datagram. */
  readonly end: number
}

/**
 * The long header at `at`, of a version that we know (RFC 9000 §17.2). Undefined for everything else: a short header, which no packet
 * follows, lengths that do not fit, a Retry, which no client sends.
 * The fixed bit may have either value: a client clears it when it knows that its server does not mind (RFC 9287 §3.1).
 */
export function readLongHeader(bytes: Uint8Array, at: number): LongHeader | undefined {
  const size = bytes.length
  if (at + DCID_LENGTH_AT >= size || (bytes[at]! & LONG_HEADER) === 0) return undefined
  const version = quicVersion(uint32(bytes, at + VERSION_AT))
  const type = version?.types[((bytes[at]! >> 4) & 3) as 0 | 1 | 2 | 3]
  if (version === undefined || type === undefined || type === 'retry') return undefined
  const dcidAt = at + DCID_LENGTH_AT + 1
  const dcidEnd = dcidAt + bytes[dcidAt - 1]!
  if (dcidEnd - dcidAt > MAX_CONNECTION_ID_BYTES || dcidEnd >= size) return undefined
  const scidEnd = dcidEnd + 1 + bytes[dcidEnd]!
  if (scidEnd - dcidEnd - 1 > MAX_CONNECTION_ID_BYTES) return undefined
  let next = scidEnd
  let tokenBytes = 0
  if (type === 'initial') {
    const tokenAt = varintEnd(bytes, scidEnd, size)
    if (tokenAt < 0) return undefined
    tokenBytes = varint(bytes, scidEnd)
    next = tokenAt + tokenBytes
  }
  const numberAt = varintEnd(bytes, next, size)
  if (numberAt < 0) return undefined
  const end = numberAt + varint(bytes, next)
  return end > size ? undefined : { version, type, at, dcidAt, dcidEnd, tokenBytes, numberAt, end }
}

/**
 * The version of a datagram that begins with a long header as every version of QUIC has it (RFC 8999 §5.1), with connection ids that
 * versions until now allow. Undefined: it does not, or it is Version Negotiation (0), which no client sends.
 */
export function invariantVersion(bytes: Uint8Array): number | undefined {
  if (bytes.length <= DCID_LENGTH_AT || (bytes[0]! & LONG_HEADER) === 0 || (bytes[0]! & FIXED_BIT) === 0)
    return undefined
  const scidLengthAt = DCID_LENGTH_AT + 1 + bytes[DCID_LENGTH_AT]!
  if (bytes[DCID_LENGTH_AT]! > MAX_CONNECTION_ID_BYTES || scidLengthAt >= bytes.length) return undefined
  if (bytes[scidLengthAt]! > MAX_CONNECTION_ID_BYTES || scidLengthAt + bytes[scidLengthAt]! >= bytes.length)
    return undefined
  return uint32(bytes, VERSION_AT) || undefined
}

function uint32(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 0x100_0000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!)
}
