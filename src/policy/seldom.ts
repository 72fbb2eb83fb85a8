import { Allowance } from '../relay/allowance.ts'

/** What may happen over and over, and is told once in a while: it would fill the log. Knows no clock of its own. */
export class Seldom {
  readonly #allowance: Allowance
  #untold = 0

  constructor(everyMs: number) {
    this.#allowance = new Allowance(1, everyMs)
  }

  /** It has happened. How many times, this one too, since it was last told, where it is to be told now; else undefined. */
  happened(now: number): number | undefined {
    this.#untold++
    if (this.#allowance.waitMs(now) > 0) return undefined
    this.#allowance.take(now)
    const times = this.#untold
    this.#untold = 0
    return times
  }
}
