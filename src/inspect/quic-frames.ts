import { varint, varintEnd } from './quic-varint.ts'

const PADDING = 0x00
const PING = 0x01
const ACK = 0x02
const ACK_ECN = 0x03
const CRYPTO = 0x06
const CONNECTION_CLOSE = 0x1c // 0x1d is the application's, which has no say yet (RFC 9000 §12.5)
const ECN_COUNTS = 3
const MAX_FRAMES = 512 // beside padding and pings; an Ethernet's datagram of the smallest CRYPTO frames has 350

/** What is done with the frames of an Initial packet that say something to us. */
export interface InitialFrames {
  /** `data` is a view. Returns why the packet is malformed. */
  crypto(offset: number, data: Uint8Array): string | undefined
  closed(): void
}

/** All frames of an Initial packet: RFC 9000 §12.4, §12.5, §19. Returns why it is malformed; frames before that were passed on. */
export function readInitialFrames(payload: Uint8Array, frames: InitialFrames): string | undefined {
  if (payload.length === 0) return 'a packet without frames'
  let at = 0
  let count = 0
  while (at < payload.length) {
    const type = payload[at++]! // of the types allowed here none needs a second byte, and none may have it (§12.4)
    if (type === PADDING || type === PING) continue
    if (++count > MAX_FRAMES) return `more than ${MAX_FRAMES} frames in a packet`
    let end = -1
    if (type === CRYPTO) {
      const lengthAt = varintEnd(payload, at, payload.length)
      const dataAt = lengthAt < 0 ? -1 : varintEnd(payload, lengthAt, payload.length)
      if (dataAt < 0) return 'a frame cut off'
      end = dataAt + varint(payload, lengthAt)
      if (end > payload.length) return 'a frame cut off'
      const why = frames.crypto(varint(payload, at), payload.subarray(dataAt, end))
      if (why !== undefined) return why
    } else if (type === ACK || type === ACK_ECN) {
      end = ackEnd(payload, at, type === ACK_ECN)
    } else if (type === CONNECTION_CLOSE) {
      end = closeEnd(payload, at)
      frames.closed()
    } else {
      return `a frame of type ${type} in an Initial`
    }
    if (end < 0) return 'a frame cut off'
    at = end
  }
  return undefined
}

/** RFC 9000 §19.3. */
function ackEnd(payload: Uint8Array, at: number, ecn: boolean): number {
  const countAt = skip(payload, at, 2) // largest, delay
  if (countAt < 0 || varintEnd(payload, countAt, payload.length) < 0) return -1
  const ranges = varint(payload, countAt)
  if (ranges > payload.length) return -1
  return skip(payload, countAt, 2 + ranges * 2 + (ecn ? ECN_COUNTS : 0))
}

/** RFC 9000 §19.19. */
function closeEnd(payload: Uint8Array, at: number): number {
  const lengthAt = skip(payload, at, 2) // error code, frame type
  const reasonAt = lengthAt < 0 ? -1 : varintEnd(payload, lengthAt, payload.length)
  if (reasonAt < 0) return -1
  const end = reasonAt + varint(payload, lengthAt)
  return end > payload.length ? -1 : end
}

/** Behind so many integers. */
function skip(payload: Uint8Array, at: number, integers: number): number {
  let end = at
  for (let i = 0; i < integers && end >= 0; i++) end = varintEnd(payload, end, payload.length)
  return end
}
