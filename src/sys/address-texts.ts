const ENTRIES = 1_024
const PLACE_SHIFT = 32 - 10 // of the 10 bits that number a place; the upper ones are the best mixed
const PRIME = 0x9e3779b1 // 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming 3, §6.4)

/**
 * The texts of the addresses of one family that were seen before: the same clients and servers come again and again, and then share
 * one string. Each address has one place that it can be in, where another may replace it; nothing is promised but speed.
 */
export class AddressTexts {
  readonly #wordsEach: number
  readonly #words: Int32Array
  readonly #texts: string[] = new Array<string>(ENTRIES).fill('')
  readonly #textOf: (bytes: Uint8Array, at: number) => string

  /** `bytesEach`: 4 or 16. `textOf`: makes the text of the address that begins at `at`. */
  constructor(bytesEach: number, textOf: (bytes: Uint8Array, at: number) => string) {
    this.#wordsEach = bytesEach / 4
    this.#words = new Int32Array(ENTRIES * this.#wordsEach)
    this.#textOf = textOf
  }

  /** The text of the address that begins at `at`. */
  of(bytes: Uint8Array, at: number): string {
    let mixed = 0
    for (let i = 0; i < this.#wordsEach; i++) mixed = Math.imul(mixed ^ wordOf(bytes, at + i * 4), PRIME)
    const place = mixed >>> PLACE_SHIFT
    let isSame = this.#texts[place] !== ''
    for (let i = 0; i < this.#wordsEach; i++) {
      const word = wordOf(bytes, at + i * 4)
      const cell = place * this.#wordsEach + i
      if (this.#words[cell] === word) continue
      isSame = false
      this.#words[cell] = word
    }
    if (!isSame) this.#texts[place] = this.#textOf(bytes, at)
    return this.#texts[place]!
  }
}

function wordOf(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}
