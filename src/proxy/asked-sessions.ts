/** Of one session: what its client sends until it is decided; a QUIC hello takes two datagrams, and both may be sent again. */
const MOST_DATAGRAMS = 8
const MOST_BYTES = 16_384
/** Of all sessions together. */
const MOST_BYTES_IN_ALL = 16 * 2 ** 20

interface Asked {
  readonly datagrams: Uint8Array[]
  bytes: number
  readonly giveUp: () => void
}

/**
 * Sessions that a hook, or the name servers of a host, are asked about, with what their clients have sent. Nothing else of them exists; how
 * many there are is bounded by whom is asked.
 */
export class AskedSessions {
  readonly #asked = new Map<string, Asked>()
  #bytes = 0

  get isEmpty(): boolean {
    return this.#asked.size === 0
  }

  /** `key`: see askedKey(). */
  has(key: string): boolean {
    return this.#asked.has(key)
  }

  begin(key: string, giveUp: () => void): void {
    this.#asked.set(key, { datagrams: [], bytes: 0, giveUp })
  }

  /** Keeps copies; false: not of all, as there are too many. */
  hold(key: string, datagrams: readonly Uint8Array[]): boolean {
    const asked = this.#asked.get(key)
    if (asked === undefined) return false
    for (const datagram of datagrams) {
      const { length } = datagram
      if (asked.datagrams.length >= MOST_DATAGRAMS || asked.bytes + length > MOST_BYTES) return false
      if (this.#bytes + length > MOST_BYTES_IN_ALL) return false
      asked.datagrams.push(datagram.slice())
      asked.bytes += length
      this.#bytes += length
    }
    return true
  }

  /** There is an answer: what was kept, in its order. */
  end(key: string): readonly Uint8Array[] {
    const asked = this.#asked.get(key)
    if (asked === undefined) return []
    this.#asked.delete(key)
    this.#bytes -= asked.bytes
    return asked.datagrams
  }

  close(): void {
    for (const { giveUp } of this.#asked.values()) giveUp()
    this.#asked.clear()
    this.#bytes = 0
  }
}
