import { HIGH_WORD, LOW_WORD } from './byte-order.ts'
import { addressOf } from './ffi.ts'

const SMALLEST_BYTES = 128 // V8 keeps smaller arrays on its heap, where they move
const WORD = 2 ** 32

/** Memory whose address stays the same, for structs that hold addresses. 64-bit Linux alone, as Node itself. */
export class FixedMemory {
  readonly bytes: Uint8Array
  /** The same memory as 32-bit words. */
  readonly words: Uint32Array
  readonly address: number

  constructor(bytes: number) {
    const memory = new ArrayBuffer(Math.max(SMALLEST_BYTES, Math.ceil(bytes / 8) * 8))
    this.bytes = new Uint8Array(memory)
    this.words = new Uint32Array(memory)
    this.address = addressOf(this.bytes)
  }

  /** Writes an address, or a size_t, at a byte offset that 8 divides. */
  setLong(offset: number, value: number): void {
    const at = offset >>> 2
    this.words[at + LOW_WORD] = value >>> 0
    this.words[at + HIGH_WORD] = Math.floor(value / WORD)
  }

  /** A size_t that is below 4 GiB. */
  setSize(offset: number, value: number): void {
    this.words[(offset >>> 2) + LOW_WORD] = value
  }

  size(offset: number): number {
    return this.words[(offset >>> 2) + LOW_WORD]!
  }
}
