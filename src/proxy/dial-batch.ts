import { Gathering } from '../sys/gathering.ts'
import type { EventLoop } from '../sys/loop.ts'
import { openSockets } from '../sys/open-sockets.ts'
import type { Dial } from './dial.ts'

/**
 * The dials of one batch of events: their sockets are made together, with a few system calls for all, where the kernel lets us have a ring.
 */
export class DialBatch {
  readonly #loop: EventLoop
  readonly #due: Gathering<Dial>

  constructor(loop: EventLoop) {
    this.#loop = loop
    this.#due = new Gathering(loop, (all) => this.#startAll(all))
  }

  /** To be started behind the events that were fetched together. */
  add(dial: Dial): void {
    this.#due.add(dial)
  }

  #startAll(all: readonly Dial[]): void {
    const due = all.filter(({ isSettled }) => !isSettled)
    const sockets = openSockets(
      due.map(({ plan }) => plan),
      this.#loop,
    )
    for (let i = 0; i < due.length; i++) due[i]!.start(sockets[i])
  }
}
