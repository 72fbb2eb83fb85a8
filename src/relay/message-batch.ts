import { FixedMemory } from '../sys/fixed-memory.ts'
import { Gathering } from '../sys/gathering.ts'
import type { EventLoop } from '../sys/loop.ts'
import type { Ring } from '../sys/ring.ts'
import { sendFlags } from '../sys/socket.ts'

/** Messages that are read together: more would leave the CPU's cache before they are written. A power of two. */
const SLOTS = 32
/** The most that one read takes: a TLS record of 16 KiB with what is around it (RFC 8446 §5.2), and some. */
const SLOT_BYTES = 17_408

/** A direction of a relay whose sender has a message for it. */
export interface Messenger {
  readonly from: number
  readonly to: number
  /** Nothing may be done with its sockets any more. */
  readonly ended: boolean
  /** Nothing follows but a FIN, at once. */
  readonly isLast: boolean
  /** The read's result: bytes, of `room` at the most, 0 for FIN, or a negative errno. Returns how many bytes are to be written. */
  onReceived(result: number, room: number): number
  /** The write's result: bytes, or a negative errno. Copies what is left of `message`. Must not end anything. */
  onSent(result: number, message: Uint8Array): void
  /** Its message has been moved, or there was none. */
  onMoved(): void
  /** Moves its message by itself. */
  moveAlone(): void
}

/**
 * The messages of one batch of events: all are read with one system call, and then all are written with one, where the kernel lets us have
 * a ring. Without one, and when there is only one message, each is moved with two calls of its own.
 */
export class MessageBatch {
  readonly #loop: EventLoop
  #memory: FixedMemory | undefined
  readonly #due: Gathering<Messenger>
  readonly #lengths = new Int32Array(SLOTS)

  constructor(loop: EventLoop) {
    this.#loop = loop
    this.#due = new Gathering(loop, (all) => this.#moveAll(all))
  }

  /** To be moved behind the events that were fetched together. */
  add(messenger: Messenger): void {
    this.#due.add(messenger)
  }

  #moveAll(due: readonly Messenger[]): void {
    for (let at = 0; at < due.length; at += SLOTS) {
      const messengers = due.slice(at, at + SLOTS).filter(({ ended }) => !ended)
      const ring = messengers.length > 1 ? this.#loop.ring : undefined
      if (ring === undefined) for (const messenger of messengers) messenger.moveAlone()
      else this.#moveTogether(ring, messengers)
    }
  }

  #moveTogether(ring: Ring, messengers: readonly Messenger[]): void {
    const count = messengers.length
    this.#memory ??= new FixedMemory(SLOTS * SLOT_BYTES)
    const memory = this.#memory
    const lengths = this.#lengths
    for (let i = 0; i < count; i++) ring.receive(messengers[i]!.from, memory.address + i * SLOT_BYTES, SLOT_BYTES)
    ring.run()
    lengths.set(ring.results.subarray(0, count))
    // one that fails here ends its relay, and with it the other direction
    for (let i = 0; i < count; i++) {
      const one = messengers[i]!
      lengths[i] = one.ended ? 0 : one.onReceived(lengths[i]!, SLOT_BYTES)
    }
    for (let i = 0; i < count; i++) {
      const one = messengers[i]!
      if (one.ended) lengths[i] = 0
      if (lengths[i]! > 0) ring.send(one.to, memory.address + i * SLOT_BYTES, lengths[i]!, sendFlags(one.isLast))
    }
    ring.run()
    // first all results, so that nothing is missing when one ends a relay
    for (let i = 0, sent = 0; i < count; i++) {
      const length = lengths[i]!
      if (length === 0) continue
      const result = ring.results[sent++]!
      if (result !== length)
        messengers[i]!.onSent(result, memory.bytes.subarray(i * SLOT_BYTES, i * SLOT_BYTES + length))
    }
    for (let i = 0; i < count; i++) if (!messengers[i]!.ended) messengers[i]!.onMoved()
  }
}
