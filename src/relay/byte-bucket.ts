import type { EventLoop } from '../sys/loop.ts'

/** A read of fewer bytes would cost as much as one of a segment (an Ethernet MTU less headers with timestamps). */
const LEAST_BYTES = 1_448
/** How long those who wait are left alone at the least: 50 reads a second for each. */
const TURN_MS = 20
/** The same in bytes, for slow ones: half of it is room for a datagram. */
const LEAST_TURN_BYTES = 4_096

/** Somebody who has bytes to read, and must not yet. */
export interface Waiter {
  /** It may read up to `bytes` now, within the call, and spend() what it has read; to go on it waits again. Called once. */
  onTurn(bytes: number): void
}

/**
 * How many bytes may pass in one direction: a burst at once, and so many a second, shared by all who ask. Never more than
 * `burst + perSecond × time`. Who finds it empty waits in line, and those who wait share what has come by then. One timer while somebody waits.
 */
export class ByteBucket {
  readonly #perMs: number
  readonly #burst: number
  readonly #turnBytes: number
  readonly #loop: Pick<EventLoop, 'now' | 'later'>
  #tokens: number
  #countedAt: number
  /** In the order in which they came. */
  readonly #waiting = new Set<Waiter>()
  #timer: NodeJS.Timeout | undefined

  /** `burst`: 100,000 bytes at the least. `now`: monotonic milliseconds, where the loop's are those of its last events. */
  constructor(
    { perSecond, burst }: { readonly perSecond: number; readonly burst: number },
    loop: Pick<EventLoop, 'now' | 'later'>,
    now: number,
  ) {
    this.#perMs = perSecond / 1_000
    this.#burst = burst
    this.#turnBytes = Math.max(LEAST_TURN_BYTES, Math.min(burst / 2, this.#perMs * TURN_MS))
    this.#loop = loop
    this.#tokens = burst
    this.#countedAt = now
  }

  /** Bytes that somebody may read who has not waited; 0 while others wait. */
  get free(): number {
    return this.#waiting.size > 0 || this.left < LEAST_BYTES ? 0 : this.left
  }

  /** Bytes that have not been spent: whole ones, and less than 0 after more was spent than there were. */
  get left(): number {
    const { now } = this.#loop
    if (now > this.#countedAt) {
      this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#countedAt) * this.#perMs)
      this.#countedAt = now
    }
    return Math.floor(this.#tokens)
  }

  /** Nothing has been spent lately, so that another one would do as well. */
  get isFull(): boolean {
    return this.left >= this.#burst - 1 && this.#waiting.size === 0
  }

  spend(bytes: number): void {
    this.#tokens -= bytes
  }

  /**
   * For datagrams, which do not wait: of `bytes` in datagrams of `size` (the last may be shorter) as many bytes as may pass, in whole
   * datagrams. They are spent. While somebody waits, half of what comes is his.
   */
  takeWhole(bytes: number, size: number): number {
    if (bytes === 0) return 0
    const left = this.left - (this.#waiting.size > 0 ? this.#turnBytes / 2 : 0)
    const taken = left >= bytes ? bytes : Math.max(0, Math.floor(left / size) * size)
    this.#tokens -= taken
    return taken
  }

  wait(waiter: Waiter): void {
    this.#waiting.add(waiter)
    this.#arm()
  }

  /** It waits no more. */
  leave(waiter: Waiter): void {
    if (!this.#waiting.delete(waiter) || this.#waiting.size > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#waiting.size === 0) return
    const waitMs = Math.max(1, Math.ceil((this.#turnBytes - this.left) / this.#perMs))
    this.#timer = setTimeout(() => this.#loop.later(() => this.#serve()), waitMs) // later() reads the clock
  }

  /** Who comes back for more waits for the next time. */
  #serve(): void {
    this.#timer = undefined
    let turns = this.#waiting.size
    try {
      for (const waiter of this.#waiting) {
        const { left } = this
        if (turns === 0 || left < LEAST_BYTES) break
        this.#waiting.delete(waiter)
        waiter.onTurn(Math.min(left, Math.max(LEAST_BYTES, Math.floor(left / turns))))
        turns--
      }
    } finally {
      this.#arm()
    }
  }
}
