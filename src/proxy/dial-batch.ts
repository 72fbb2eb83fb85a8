import type { EventLoop } from '../sys/loop.ts'
import { openSockets } from '../sys/open-sockets.ts'
import type { Dial } from './dial.ts'

/**
 * The dials of one batch of events: their sockets are made together, with a few system calls for all, where the kernel lets us have a ring.
 */
export class DialBatch {
  readonly #loop: EventLoop
  #due: Dial[] = []

  constructor(loop: EventLoop) {
    this.#loop = loop
  }

  /** To be started behind the events that were fetched together. */
  add(dial: Dial): void {
    if (this.#due.push(dial) === 1) this.#loop.afterEvents(() => this.#startAll())
  }

  #startAll(): void {
    const due = this.#due.filter(({ isSettled }) => !isSettled)
    this.#due = []
    const sockets = openSockets(
      due.map(({ plan }) => plan),
      this.#loop,
    )
    for (let i = 0; i < due.length; i++) due[i]!.start(sockets[i])
  }
}
