import { KeptDatagrams } from './kept-datagrams.ts'
import type { UdpContext } from './udp-context.ts'

/** Of all sessions together. */
const MOST_BYTES = 16 * 2 ** 20

interface Asked {
  readonly kept: KeptDatagrams
  readonly giveUp: () => void
}

/**
 * Sessions that a hook, or the name servers of a host, are asked about, with what their clients have sent. Nothing else of them exists; how
 * many there are is bounded by whom is asked.
 */
export class AskedSessions {
  readonly #asked = new Map<string, Asked>()
  readonly #countDrop: UdpContext['countDrop']
  #bytes = 0

  constructor(countDrop: UdpContext['countDrop']) {
    this.#countDrop = countDrop
  }

  get isEmpty(): boolean {
    return this.#asked.size === 0
  }

  /** `key`: see askedKey(). */
  has(key: string): boolean {
    return this.#asked.has(key)
  }

  begin(key: string, giveUp: () => void): void {
    this.#asked.set(key, { kept: new KeptDatagrams(), giveUp })
  }

  /** Keeps copies; those that are too many are lost. */
  hold(key: string, datagrams: readonly Uint8Array[]): void {
    const kept = this.#asked.get(key)?.kept
    for (const datagram of datagrams) {
      const { length } = datagram
      if (this.#bytes + length <= MOST_BYTES && kept?.keep(datagram) === true) this.#bytes += length
      else this.#countDrop('decision-waiting', 1)
    }
  }

  /** There is an answer: what was kept, in its order. */
  end(key: string): readonly Uint8Array[] {
    const kept = this.#asked.get(key)?.kept
    if (kept === undefined) return []
    this.#asked.delete(key)
    this.#bytes -= kept.bytes
    return kept.all
  }

  close(): void {
    for (const { giveUp } of this.#asked.values()) giveUp()
    this.#asked.clear()
    this.#bytes = 0
  }
}
