import type { Writable } from 'node:stream'

/** Lines that wait for a reader who is slow, before further ones are dropped. */
const MAX_WAITING_BYTES = 1_048_576 // about 8,000 flow lines

/**
 * Writes lines without ever waiting: when the reader stalls or is gone, lines are dropped and counted, so that a log
 * that nobody reads cannot stop traffic.
 */
export class LineWriter {
  readonly #stream: Writable
  #isGone = false
  /** Lines that found no room. */
  dropped = 0

  constructor(stream: Writable) {
    this.#stream = stream
    stream.on('error', () => {
      this.#isGone = true
    })
  }

  write(line: string): void {
    if (this.#isGone || this.#stream.writableLength > MAX_WAITING_BYTES) this.dropped++
    else this.#stream.write(`${line}\n`)
  }

  /** Waits until the reader has what was written, at the most `withinMs`. */
  async flush(withinMs: number): Promise<void> {
    if (this.#isGone || this.#stream.writableLength === 0) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        resolve()
      }
      const timer = setTimeout(done, withinMs)
      this.#stream.once('drain', done)
      this.#stream.once('error', done)
    })
  }
}
