import type { Family } from '../net/address.ts'
import type { Sockaddr } from '../relay/outbox.ts'
import type { DatagramArena } from '../sys/datagram-arena.ts'
import { RawDatagrams } from '../sys/raw-datagrams.ts'
import type { ReplyOutlet } from './reply-outlet.ts'

export interface RawOutletOptions {
  readonly arena: DatagramArena
  readonly mark: number
  onLost(errno: number, datagrams: number): void
}

/** Answers from wherever they must come, one system call for each. */
export class RawOutlet implements ReplyOutlet {
  readonly fd = 0 // never used: it sends by itself
  readonly family: Family
  readonly needsFrom = true
  readonly #raw: RawDatagrams
  readonly #options: RawOutletOptions
  readonly #count: (datagrams: number) => void
  segments = false
  head = -1
  tail = -1

  constructor(family: Family, options: RawOutletOptions, count: (datagrams: number) => void) {
    this.family = family
    this.#options = options
    this.#count = count
    this.#raw = new RawDatagrams(family, options.mark)
  }

  sendAlone = (slot: number, to: Sockaddr, from: Sockaddr): void => {
    const { arena, onLost } = this.#options
    const bytes = arena.bytesOf(slot)
    const size = arena.segment[slot] || bytes.length
    let at = 0
    do {
      const piece = bytes.subarray(at, at + size)
      const errno = this.#raw.send(
        piece,
        arena.addressOf(slot) + at,
        to.words,
        to.at,
        from.words,
        from.at,
        arena.tos[slot]!,
      )
      if (errno === 0) this.#count(1)
      else onLost(errno, 1)
      at += size
    } while (size > 0 && at < bytes.length)
  }

  onEarlierError(): void {}
  onLost(): void {}

  close(): void {
    this.#raw.close()
  }
}
