const BATCH = 64
/** Batches under way to a reader who is slow; what comes then is dropped, and counted. */
const MAX_UNDER_WAY = 128 // of flow records about 8,000, as many as a LineWriter keeps

export interface BatchOptions<T> {
  /** How long the first of a batch waits for others. */
  readonly waitMs: number
  /** Calls `done` when they have left. */
  send(items: readonly T[], done: () => void): void
}

/** Sends things many at a time: a message of its own for each would cost more than what it tells of. */
export class Batch<T> {
  readonly #options: BatchOptions<T>
  #items: T[] = []
  #timer: NodeJS.Timeout | undefined
  #underWay = 0
  /** Those that found no room. */
  dropped = 0

  constructor(options: BatchOptions<T>) {
    this.#options = options
  }

  add(item: T): void {
    if (this.#underWay >= MAX_UNDER_WAY) {
      this.dropped++
      return
    }
    this.#items.push(item)
    if (this.#items.length >= BATCH) this.flush()
    else this.#timer ??= setTimeout(() => this.flush(), this.#options.waitMs)
  }

  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#items.length === 0) return
    this.#underWay++
    this.#options.send(this.#items, () => {
      this.#underWay--
    })
    this.#items = []
  }
}
