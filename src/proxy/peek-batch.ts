import { FixedMemory } from '../sys/fixed-memory.ts'
import { Gathering } from '../sys/gathering.ts'
import type { EventLoop } from '../sys/loop.ts'
import { peekBytes } from '../sys/socket.ts'

/** More than any hello that a server accepts: several records of a TLS ClientHello, or an HTTP head. */
export const PEEK_BYTES = 65_536
/** Looked at together. */
const SLOTS = 16
/** Most hellos are smaller; of a larger one all is looked at by itself. A power of two. */
const SLOT_BYTES = 4_096

/** Who wants to look at the first bytes of a socket. */
export interface Looker {
  readonly fd: number
  /** Nobody wants to know any more, and `fd` may be another's. */
  readonly isStopped: boolean
  /** `bytes`: those that are there, valid within the call; or 0 for a FIN with nothing before it, or the negative errno. */
  onLook(bytes: Uint8Array | number): void
}

/** Every look by itself copies into it. */
const buffer = new Uint8Array(PEEK_BYTES)

/** Looks at the first bytes in a socket without taking them (MSG_PEEK, recv(2)): PEEK_BYTES at the most. */
export function lookNow(fd: number): Uint8Array | number {
  const count = peekBytes(fd, buffer, PEEK_BYTES)
  return count > 0 ? buffer.subarray(0, count) : count
}

/** The looks of one batch of events: one system call for many, where the kernel lets us have a ring. */
export class PeekBatch {
  readonly #loop: EventLoop
  #memory: FixedMemory | undefined
  readonly #due: Gathering<Looker>

  constructor(loop: EventLoop) {
    this.#loop = loop
    this.#due = new Gathering(loop, (all) => this.#lookAll(all))
  }

  /** It looks behind the events that were fetched together. */
  add(looker: Looker): void {
    this.#due.add(looker)
  }

  #lookAll(due: readonly Looker[]): void {
    for (let at = 0; at < due.length; at += SLOTS) this.#look(due.slice(at, at + SLOTS).filter((one) => !one.isStopped))
  }

  #look(lookers: readonly Looker[]): void {
    const ring = lookers.length > 1 ? this.#loop.ring : undefined
    if (ring === undefined) {
      for (const looker of lookers) looker.onLook(lookNow(looker.fd))
      return
    }
    this.#memory ??= new FixedMemory(SLOTS * SLOT_BYTES)
    const { address, bytes } = this.#memory
    for (let i = 0; i < lookers.length; i++) ring.peek(lookers[i]!.fd, address + i * SLOT_BYTES, SLOT_BYTES)
    ring.run()
    const counts = ring.results.slice(0, lookers.length)
    for (let i = 0; i < lookers.length; i++) {
      const looker = lookers[i]!
      const count = counts[i]!
      const at = i * SLOT_BYTES
      if (looker.isStopped) continue // by what another has found
      if (count === SLOT_BYTES) looker.onLook(lookNow(looker.fd))
      else looker.onLook(count > 0 ? bytes.subarray(at, at + count) : count)
    }
  }
}
