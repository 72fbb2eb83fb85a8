/** Of one client, until it is known what becomes of them: a browser's QUIC hello takes two datagrams, and both may be sent again. */
const MOST_DATAGRAMS = 8
const MOST_BYTES = 16_384

/** Copies of a client's datagrams that wait, in their order. */
export class KeptDatagrams {
  readonly #all: Uint8Array[] = []
  #bytes = 0

  get all(): readonly Uint8Array[] {
    return this.#all
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Keeps a copy; false: as much is kept as may be. */
  keep(datagram: Uint8Array): boolean {
    if (this.#all.length >= MOST_DATAGRAMS || this.#bytes + datagram.length > MOST_BYTES) return false
    this.#all.push(new Uint8Array(datagram)) // not slice(): of a Buffer that is a view
    this.#bytes += datagram.length
    return true
  }
}
