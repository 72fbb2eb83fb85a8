const PATTERN_BYTES = 1_048_573 // a prime: no read or pipe size divides it, so bytes that move by a whole buffer show

/** The bytes that a bulk transfer repeats for ever. The same in every process: a fixed xorshift32 sequence. */
export function bulkPattern(): Buffer {
  const pattern = Buffer.allocUnsafe(PATTERN_BYTES)
  let state = 0x9e3779b9
  for (let i = 0; i < PATTERN_BYTES; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    pattern[i] = state >>> 24
  }
  return pattern
}

/** Holds the bytes of one connection against the pattern, in the order in which they come. */
export class PatternCheck {
  readonly #pattern: Buffer
  #at = 0

  constructor(pattern: Buffer) {
    this.#pattern = pattern
  }

  /** True when the first `length` bytes of `bytes` are what comes next. */
  matches(bytes: Buffer, length: number): boolean {
    const pattern = this.#pattern
    for (let done = 0; done < length; ) {
      const count = Math.min(length - done, pattern.length - this.#at)
      if (pattern.compare(bytes, done, done + count, this.#at, this.#at + count) !== 0) return false
      this.#at = (this.#at + count) % pattern.length
      done += count
    }
    return true
  }
}
