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
