import { socketDrops } from '../sys/options.ts'

/** 16 small datagrams, or one large one: fewer never fill a socket's buffer. */
const WORTH_ASKING_BYTES = 65_536
const DATAGRAM_BYTES = 4_096

/** What the full buffer of a session's socket has cost. */
export class Overflow {
  #counted = 0
  #askedAt = 0

  /** Datagrams lost since the last call. `datagrams`, `bytes`: what has come by the socket in all, or more. */
  since(fd: number, datagrams: number, bytes: number): number {
    const received = bytes + datagrams * DATAGRAM_BYTES
    if (received - this.#askedAt < WORTH_ASKING_BYTES) return 0
    this.#askedAt = received
    const before = this.#counted
    this.#counted = socketDrops(fd)
    return (this.#counted - before) >>> 0
  }
}
