import { createCipheriv, createDecipheriv } from 'node:crypto'
import type { LongHeader } from './quic-header.ts'
import type { InitialKeys } from './quic-keys.ts'

const MAX_NUMBER_BYTES = 4
const SAMPLE_BYTES = 16 // RFC 9001 §5.4.2
const TAG_BYTES = 16 // AEAD_AES_128_GCM, RFC 5116 §5.1

export interface OpenedPacket {
  readonly number: number
  /** The reserved bits of the first byte (RFC 9000 §17.2): a sender sets them to 0. */
  readonly reserved: number
  /** The frames. */
  readonly payload: Uint8Array
}

/**
 * Takes protection off an Initial packet (RFC 9001 §5.3, §5.4). Undefined: these are not its keys, or it is none.
 * `largest`: the highest number that was opened with these keys, -1 before the first. `bytes` stays as it is.
 */
export function openInitial(
  bytes: Uint8Array,
  header: LongHeader,
  keys: InitialKeys,
  largest: number,
): OpenedPacket | undefined {
  const { at, numberAt, end } = header
  const sampleAt = numberAt + MAX_NUMBER_BYTES
  if (sampleAt + SAMPLE_BYTES > end) return undefined
  const mask = createCipheriv('aes-128-ecb', keys.hp, null).update(bytes.subarray(sampleAt, sampleAt + SAMPLE_BYTES))
  const first = bytes[at]! ^ (mask[0]! & 0x0f)
  const payloadAt = numberAt + (first & 3) + 1
  const head = Buffer.from(bytes.subarray(at, payloadAt)) // a copy
  head[0] = first
  let truncated = 0
  for (let i = numberAt; i < payloadAt; i++) {
    head[i - at]! ^= mask[1 + i - numberAt]!
    truncated = truncated * 256 + head[i - at]!
  }
  const number = wholeNumber(truncated, 256 ** (payloadAt - numberAt), largest)
  const decipher = createDecipheriv('aes-128-gcm', keys.key, nonce(keys.iv, number))
  decipher.setAAD(head)
  decipher.setAuthTag(bytes.subarray(end - TAG_BYTES, end))
  const payload = decipher.update(bytes.subarray(payloadAt, end - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    return undefined // does not authenticate
  }
  return { number, reserved: first & 0x0c, payload }
}

/** The number nearest to the next expected one that ends in these bits: RFC 9000 §17.1, appendix A.3. */
function wholeNumber(truncated: number, window: number, largest: number): number {
  const expected = largest + 1
  const candidate = Math.floor(expected / window) * window + truncated
  if (candidate <= expected - window / 2) return candidate + window
  return candidate > expected + window / 2 && candidate >= window ? candidate - window : candidate
}

/** RFC 9001 §5.3. */
function nonce(iv: Uint8Array, number: number): Uint8Array {
  const nonce = Buffer.from(iv)
  for (let i = nonce.length - 1, rest = number; rest > 0; i--, rest = Math.floor(rest / 256)) nonce[i]! ^= rest % 256
  return nonce
}
