import type { EventLoop } from './loop.ts'

/** What is wanted while events are delivered: handed on all together, behind the events that were fetched together. */
export class Gathering<T> {
  readonly #loop: EventLoop
  readonly #onAll: (all: readonly T[]) => void
  #due: T[] = []

  constructor(loop: EventLoop, onAll: (all: readonly T[]) => void) {
    this.#loop = loop
    this.#onAll = onAll
  }

  add(one: T): void {
    if (this.#due.push(one) === 1) this.#loop.afterEvents(() => this.#handOn())
  }

  #handOn(): void {
    const due = this.#due
    this.#due = []
    this.#onAll(due)
  }
}
