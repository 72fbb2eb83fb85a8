import { LimpidError } from '../errors.ts'

/** What came in and waits for the one who iterates. Bounded by the one who fills it: see `isFull` and `room`. */
export class WaitingQueue<T> {
  readonly #items: T[] = []
  readonly #most: number
  readonly #what: string
  readonly #onTaken: () => void
  #wake: (() => void) | undefined
  #isIterated = false
  #closed = false

  /** `what`: in the error of a second iteration. `onTaken` is called when there is room again. */
  constructor(most: number, what: string, onTaken: () => void) {
    this.#most = most
    this.#what = what
    this.#onTaken = onTaken
  }

  get isFull(): boolean {
    return this.room === 0
  }

  /** How many more it takes. */
  get room(): number {
    return Math.max(0, this.#most - this.#items.length)
  }

  push(item: T): void {
    this.#items.push(item)
    this.#wake?.()
  }

  /** Ends the iteration, and returns what nobody took. */
  close(): T[] {
    this.#closed = true
    this.#wake?.()
    return this.#items.splice(0)
  }

  /** @throws LimpidError LIMPID_USAGE while another iteration is under way: each item is given once. */
  async *iterate(): AsyncGenerator<T, void, undefined> {
    if (this.#isIterated) {
      throw new LimpidError('LIMPID_USAGE', `this ${this.#what} is iterated already`, {
        cure: 'iterate in one place, and hand on from there what comes',
      })
    }
    this.#isIterated = true
    try {
      yield* this.#take()
    } finally {
      this.#isIterated = false
    }
  }

  async *#take(): AsyncGenerator<T, void, undefined> {
    while (!this.#closed) {
      const item = this.#items.shift()
      if (item === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      } else {
        this.#onTaken()
        yield item
      }
    }
  }
}
