/** How often something may be done: a number of times at once, then once per interval. Knows no clock of its own. */
export class Allowance {
  readonly #burst: number
  readonly #intervalMs: number
  #left: number
  #countedAt = Number.NEGATIVE_INFINITY

  constructor(burst: number, intervalMs: number) {
    this.#burst = burst
    this.#intervalMs = intervalMs
    this.#left = burst
  }

  /** Milliseconds until it may be done; 0 for now. */
  waitMs(now: number): number {
    const left = this.#at(now)
    return left >= 1 ? 0 : (1 - left) * this.#intervalMs
  }

  /** Notes that it was done. */
  take(now: number): void {
    this.#left = Math.max(0, this.#at(now) - 1)
    this.#countedAt = now
  }

  #at(now: number): number {
    return Math.min(this.#burst, this.#left + (now - this.#countedAt) / this.#intervalMs)
  }
}
