import type { ByteBucket, Waiter } from './byte-bucket.ts'

/** How fast one direction of a relay reads: its place at a bucket, which it may share with others. */
export class Pace implements Waiter {
  readonly #bucket: ByteBucket
  readonly #goOn: () => void
  /** Bytes that are left of its turn. */
  #turn = 0
  /** It reads nothing until its turn. */
  waits = false

  /** `goOn`: it is its turn; called within the loop's later(). */
  constructor(bucket: ByteBucket, goOn: () => void) {
    this.#bucket = bucket
    this.#goOn = goOn
  }

  /** How many bytes may be read now, of `most`. 0: none, and it waits for its turn. */
  room(most: number): number {
    if (this.waits) return 0
    // others may have their events within its turn, and spend, too
    const room = this.#turn > 0 ? Math.min(this.#turn, this.#bucket.left) : this.#bucket.free
    if (room > 0) return Math.min(room, most)
    this.waits = true
    this.#bucket.wait(this)
    return 0
  }

  spend(bytes: number): void {
    this.#turn = Math.max(0, this.#turn - bytes)
    this.#bucket.spend(bytes)
  }

  onTurn(bytes: number): void {
    this.waits = false
    this.#turn = bytes
    this.#goOn()
    this.#turn = 0
  }

  /** It waits no more. */
  leave(): void {
    this.#bucket.leave(this)
    this.waits = false
  }
}
