import type { DatagramArena } from '../sys/datagram-arena.ts'
import { SOCKADDR_WORDS } from '../sys/sockaddr.ts'

/** Datagrams that wait for a decision at once, of one listener. */
const MOST_HELD = 4_096
/** What they take together: a question is a hundred bytes, and one may have 64 KiB. */
const MOST_BYTES = 4 * 2 ** 20

/** A copy of what lay in a slot. */
export interface HeldSlot {
  readonly bytes: Uint8Array
  readonly sender: Uint32Array
  readonly destination: Uint32Array
  readonly tos: number
  readonly onForgotten: () => void
}

/** Datagrams that an app wants to decide later. */
export class HeldDatagrams {
  readonly #held = new Set<HeldSlot>()
  #bytes = 0

  /** Copies a slot; undefined: as much is held as may be. `onForgotten`: see forget(). */
  hold(arena: DatagramArena, slot: number, onForgotten: () => void): HeldSlot | undefined {
    const length = arena.length[slot]!
    if (this.#held.size >= MOST_HELD || this.#bytes + length > MOST_BYTES) return undefined
    const at = slot * SOCKADDR_WORDS
    const held = {
      bytes: arena.bytesOf(slot).slice(),
      sender: arena.senders.slice(at, at + SOCKADDR_WORDS),
      destination: arena.destinations.slice(at, at + SOCKADDR_WORDS),
      tos: arena.tos[slot]!,
      onForgotten,
    }
    this.#held.add(held)
    this.#bytes += length
    return held
  }

  /** False: it is not held any more. */
  release(held: HeldSlot): boolean {
    if (!this.#held.delete(held)) return false
    this.#bytes -= held.bytes.length
    return true
  }

  /** Gives up all of them, and says so. */
  forget(): void {
    const all = [...this.#held]
    this.#held.clear()
    this.#bytes = 0
    for (const { onForgotten } of all) onForgotten()
  }
}
