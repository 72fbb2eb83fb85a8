import { createHmac } from 'node:crypto'
import type { QuicVersion } from './quic-version.ts'

const KEY_BYTES = 16 // AES-128, with which every Initial is protected (RFC 9001 §5.2)
const IV_BYTES = 12
const SECRET_BYTES = 32

/** What protects the Initial packets of a client. No secret from anyone who sees the client's first packet. */
export interface InitialKeys {
  readonly key: Uint8Array
  readonly iv: Uint8Array
  /** Of the header protection. */
  readonly hp: Uint8Array
}

/** From the Destination Connection ID of the client's first Initial packet, or of its first one after a Retry: RFC 9001 §5.2. */
export function clientInitialKeys(version: QuicVersion, dcid: Uint8Array): InitialKeys {
  const initial = hmac(version.salt, dcid) // HKDF-Extract, RFC 5869 §2.2
  const { labels } = version
  const client = expandLabel(initial, 'client in', SECRET_BYTES)
  return {
    key: expandLabel(client, labels.key, KEY_BYTES),
    iv: expandLabel(client, labels.iv, IV_BYTES),
    hp: expandLabel(client, labels.hp, KEY_BYTES),
  }
}

const infos = new Map<string, Uint8Array>() // one for each label of the versions that we know

/** HKDF-Expand-Label without context (RFC 8446 §7.1), up to the 32 bytes that one block of HKDF-Expand has. */
function expandLabel(secret: Uint8Array, label: string, length: number): Uint8Array {
  let info = infos.get(label)
  if (info === undefined) {
    const name = `tls13 ${label}`
    info = Buffer.concat([Buffer.from([0, length, name.length]), Buffer.from(name), Buffer.from([0, 1])]) // 1: the first block
    infos.set(label, info)
  }
  return hmac(secret, info).subarray(0, length)
}

function hmac(key: Uint8Array, data: Uint8Array): Buffer {
  return createHmac('sha256', key).update(data).digest()
}
