/** Sessions that wait at once; the one that waits longest makes room, and its client sends again. */
const MOST_SESSIONS = 1_024
/** Of one of them: a browser's hello takes two datagrams, and both may be sent again. */
const MOST_DATAGRAMS = 8
const MOST_BYTES = 16_384

interface Half {
  readonly connection: object
  readonly datagrams: Uint8Array[]
  bytes: number
}

/**
 * Datagrams of QUIC connections that clients begin within their sessions, until the hello is whole: halves of two hellos, sent in turn, must not come
 * together at the server.
 */
export class HalfHellos {
  readonly #halves = new Map<object, Half>()

  /** Keeps a copy, and none of another connection of that session; false: as much is kept as may be. */
  hold(session: object, connection: object, datagram: Uint8Array): boolean {
    const former = this.#halves.get(session)
    const half = former?.connection === connection ? former : { connection, datagrams: [], bytes: 0 }
    if (half.datagrams.length >= MOST_DATAGRAMS || half.bytes + datagram.length > MOST_BYTES) return false
    if (former === undefined && this.#halves.size >= MOST_SESSIONS) {
      this.#halves.delete(this.#halves.keys().next().value!)
    }
    half.datagrams.push(datagram.slice())
    half.bytes += datagram.length
    this.#halves.set(session, half)
    return true
  }

  /** What was kept of this connection, in its order; what was of another is forgotten. */
  take(session: object, connection: object | undefined): readonly Uint8Array[] {
    const half = this.#halves.get(session)
    this.#halves.delete(session)
    return half !== undefined && half.connection === connection ? half.datagrams : []
  }

  forget(session: object): void {
    this.#halves.delete(session)
  }
}
