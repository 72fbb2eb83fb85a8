import { ECONNRESET, EPIPE } from '../sys/errno.ts'

/** Why a relay ended. Anything but `closed` is passed on to both peers as a reset. */
export type RelayReason =
  /** Both peers sent FIN and all bytes before it were passed on. */
  | 'closed'
  /** The peer sent RST, or refused bytes that came after it had closed. */
  | 'client-reset'
  | 'upstream-reset'
  /** The peer's host stopped answering (ETIMEDOUT), or the network says it is gone (EHOSTUNREACH …). */
  | 'client-lost'
  | 'upstream-lost'
  /** No byte in either direction for `idleMs`. */
  | 'idle-timeout'
  /** One direction closed, and no byte in the other for `halfCloseMs`. */
  | 'half-close-timeout'
  /** Limpid stopped before the flow did. */
  | 'shutdown'

/** An end of a relay. */
export type Peer = 'client' | 'upstream'

export function otherPeer(peer: Peer): Peer {
  return peer === 'client' ? 'upstream' : 'client'
}

/** What the errno of a call on the socket towards `peer` means for the relay. */
export function lossOf(errno: number, peer: Peer): RelayReason {
  if (errno === ECONNRESET || errno === EPIPE) return peer === 'client' ? 'client-reset' : 'upstream-reset'
  return peer === 'client' ? 'client-lost' : 'upstream-lost'
}
