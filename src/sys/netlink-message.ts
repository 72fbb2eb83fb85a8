import { littleEndian } from './byte-order.ts'

const HEADER_BYTES = 16 // struct nlmsghdr, linux/netlink.h
const ATTRIBUTE_HEADER_BYTES = 4
const NESTED = 0x8000 // NLA_F_NESTED
const ATTRIBUTE_TYPE_MASK = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER

/** One netlink message. `body` is what follows the header: a fixed part, then attributes. */
export interface NetlinkMessage {
  readonly type: number
  readonly flags: number
  readonly body: Uint8Array
}

export function encodeMessage(type: number, flags: number, sequence: number, body: Uint8Array): Uint8Array {
  const message = new Uint8Array(HEADER_BYTES + body.length)
  const view = new DataView(message.buffer)
  view.setUint32(0, message.length, littleEndian)
  view.setUint16(4, type, littleEndian)
  view.setUint16(6, flags, littleEndian)
  view.setUint32(8, sequence, littleEndian)
  message.set(body, HEADER_BYTES)
  return message
}

/** The messages of one datagram, as views of its bytes; what is cut short is left out. */
export function* messagesIn(bytes: Uint8Array): Generator<NetlinkMessage> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const length = view.getUint32(at, littleEndian)
    if (length < HEADER_BYTES || at + length > bytes.length) return
    yield {
      type: view.getUint16(at + 4, littleEndian),
      flags: view.getUint16(at + 6, littleEndian),
      body: bytes.subarray(at + HEADER_BYTES, at + length),
    }
    at += aligned(length)
  }
}

/** The attributes of a body, behind its fixed part of `from` bytes; what is cut short is left out. */
export function* attributesIn(body: Uint8Array, from: number): Generator<readonly [type: number, value: Uint8Array]> {
  const view = new DataView(body.buffer, body.byteOffset, body.length)
  for (let at = from; at + ATTRIBUTE_HEADER_BYTES <= body.length; ) {
    const length = view.getUint16(at, littleEndian)
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > body.length) return
    const type = view.getUint16(at + 2, littleEndian) & ATTRIBUTE_TYPE_MASK
    yield [type, body.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length)]
    at += aligned(length)
  }
}

/** The first attribute of a type; undefined when there is none. */
export function attributeOf(body: Uint8Array, from: number, wanted: number): Uint8Array | undefined {
  for (const [type, value] of attributesIn(body, from)) if (type === wanted) return value
  return undefined
}

/** A body: its fixed part (a multiple of four bytes), then attributes. */
export function encodeBody(fixed: Uint8Array, attributes: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat([fixed, ...attributes]))
}

export function encodeByte(type: number, value: number): Uint8Array {
  return encodeAttribute(type, Uint8Array.of(value))
}

/** An attribute that holds others. */
export function encodeNested(type: number, attributes: readonly Uint8Array[]): Uint8Array {
  return encodeAttribute(type | NESTED, encodeBody(new Uint8Array(0), attributes))
}

/** 32 bits in the machine's order. */
export function encodeU32(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value >>> 0, littleEndian)
  return encodeAttribute(type, bytes)
}

/** Ends with NUL. */
export function encodeText(type: number, text: string): Uint8Array {
  return encodeAttribute(type, new TextEncoder().encode(`${text}\0`))
}

export function encodeAttribute(type: number, value: Uint8Array): Uint8Array {
  const length = ATTRIBUTE_HEADER_BYTES + value.length
  const bytes = new Uint8Array(aligned(length))
  const view = new DataView(bytes.buffer)
  view.setUint16(0, length, littleEndian)
  view.setUint16(2, type, littleEndian)
  bytes.set(value, ATTRIBUTE_HEADER_BYTES)
  return bytes
}

/** 32 bits in the machine's order. */
export function readU32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(at, littleEndian)
}

export function readI32(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) | 0
}

/** A text that ends with NUL. */
export function readText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return Buffer.from(bytes.buffer, bytes.byteOffset, end < 0 ? bytes.length : end).toString('latin1')
}

function aligned(length: number): number {
  return (length + 3) & ~3
}
