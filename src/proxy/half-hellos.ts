import { KeptDatagrams } from './kept-datagrams.ts'

/** Sessions that wait at once; the one that waits longest makes room, and its client sends again. */
const MOST_SESSIONS = 1_024

interface Half {
  readonly connection: object
  readonly kept: KeptDatagrams
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
    const half = former?.connection === connection ? former : { connection, kept: new KeptDatagrams() }
    if (!half.kept.keep(datagram)) return false
    if (former === undefined && this.#halves.size >= MOST_SESSIONS) {
      this.#halves.delete(this.#halves.keys().next().value!)
    }
    this.#halves.set(session, half)
    return true
  }

  /** What was kept of this connection, in its order; what was of another is forgotten. */
  take(session: object, connection: object | undefined): readonly Uint8Array[] {
    const half = this.#halves.get(session)
    this.#halves.delete(session)
    return half !== undefined && half.connection === connection ? half.kept.all : []
  }

  forget(session: object): void {
    this.#halves.delete(session)
  }
}
