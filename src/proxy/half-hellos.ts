import { KeptDatagrams } from './kept-datagrams.ts'
import type { UdpContext } from './udp-context.ts'

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
  readonly #countDrop: UdpContext['countDrop']

  constructor(countDrop: UdpContext['countDrop']) {
    this.#countDrop = countDrop
  }

  /** Keeps a copy, and none of another connection of that session; where as much is kept as may be it is lost. */
  hold(session: object, connection: object, datagram: Uint8Array): void {
    if (this.#halves.get(session)?.connection !== connection) this.forget(session)
    let half = this.#halves.get(session)
    if (half === undefined) {
      if (this.#halves.size >= MOST_SESSIONS) this.forget(this.#halves.keys().next().value!)
      half = { connection, kept: new KeptDatagrams() }
      this.#halves.set(session, half)
    }
    if (!half.kept.keep(datagram)) this.#countDrop('malformed', 1)
  }

  /** What was kept of this connection, in its order; what was of another is forgotten. */
  take(session: object, connection: object | undefined): readonly Uint8Array[] {
    const half = this.#halves.get(session)
    if (half?.connection !== connection) this.forget(session)
    return this.#halves.delete(session) ? half!.kept.all : []
  }

  forget(session: object): void {
    const half = this.#halves.get(session)
    if (half !== undefined) this.#countDrop('hello-timeout', half.kept.all.length)
    this.#halves.delete(session)
  }
}
