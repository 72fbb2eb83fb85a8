/** Types of long header packets, in no version's order. */
export type LongPacket = 'initial' | 'zeroRtt' | 'handshake' | 'retry'

/** What distinguishes the versions of QUIC whose Initial packets we can open. */
export interface QuicVersion {
  readonly id: number
  /** By the two type bits of the first byte. */
  readonly types: readonly [LongPacket, LongPacket, LongPacket, LongPacket]
  readonly salt: Uint8Array
  /** Labels for HKDF-Expand-Label. */
  readonly labels: { readonly key: string; readonly iv: string; readonly hp: string }
}

/** RFC 9000 §17.2, RFC 9001 §5.1, §5.2. */
const V1: QuicVersion = {
  id: 0x0000_0001,
  types: ['initial', 'zeroRtt', 'handshake', 'retry'],
  salt: Buffer.from('38762cf7f55934b34d179ae6a4c80cadccbb7f0a', 'hex'),
  labels: { key: 'quic key', iv: 'quic iv', hp: 'quic hp' },
}

/** RFC 9369 §3. */
const V2: QuicVersion = {
  id: 0x6b33_43cf,
  types: ['retry', 'initial', 'zeroRtt', 'handshake'],
  salt: Buffer.from('0dede3def700a6db819381be6e269dcbf9bd2ed9', 'hex'),
  labels: { key: 'quicv2 key', iv: 'quicv2 iv', hp: 'quicv2 hp' },
}

/** Undefined: a version that we cannot open, a reserved one (RFC 9000 §15) or none at all. */
export function quicVersion(id: number): QuicVersion | undefined {
  if (id === V1.id) return V1
  return id === V2.id ? V2 : undefined
}
