import type { Timeouts } from '../config/types.ts'
import { sweepInterval } from './timeouts.ts'

/** Looks at the TCP flows every so often, for timeouts that have passed. */
export class Sweep {
  readonly #look: () => void
  #timer: NodeJS.Timeout | undefined
  #everyMs = Number.POSITIVE_INFINITY

  constructor(look: () => void) {
    this.#look = look
  }

  /** Flows with these timeouts may begin, while those with others go on. */
  expect(timeouts: readonly Partial<Timeouts>[]): void {
    const everyMs = sweepInterval(timeouts)
    if (everyMs >= this.#everyMs) return
    this.#everyMs = everyMs
    if (this.#timer !== undefined) this.begin()
  }

  /** After the first expect(). */
  begin(): void {
    clearInterval(this.#timer)
    this.#timer = setInterval(this.#look, this.#everyMs)
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
