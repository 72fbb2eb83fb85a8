/**
 * What a client can send before it hears of its server: a hello of a browser has 300 to 2000 bytes, with the largest keys in use 4000,
 * and MAX_DATAGRAMS of an Ethernet carry no more than this.
 */
export const MAX_CRYPTO_BYTES = 16_384
const MAX_PIECES = 128 // Chromium cuts a hello into some ten, RFC 9000 §7.5 lets a receiver set its limit
const FIRST_BYTES = 2048

/** The bytes of CRYPTO frames in order, in whatever order they come (RFC 9000 §19.6). Holds MAX_CRYPTO_BYTES at the most. */
export class CryptoStream {
  #bytes: Uint8Array = new Uint8Array(0)
  /** Begin and end of each piece, ascending; pieces do not touch. */
  #pieces: number[] = []

  /** The bytes from the stream's first to the first that is missing: a view. */
  get whole(): Uint8Array {
    const to = this.#pieces[0] === 0 ? this.#pieces[1]! : 0
    return this.#bytes.subarray(0, to)
  }

  /** Copies `data`. Returns why a receiver may not go on. */
  add(offset: number, data: Uint8Array): string | undefined {
    const end = offset + data.length
    if (end > MAX_CRYPTO_BYTES) return `CRYPTO data up to byte ${end}`
    if (data.length === 0) return undefined
    const pieces = this.#pieces
    const first = this.#firstPieceFrom(offset)
    let after = first
    let [from, to] = [offset, end]
    for (; after < pieces.length && pieces[after]! <= end; after += 2) {
      if (this.#differs(offset, data, pieces[after]!, pieces[after + 1]!))
        return 'CRYPTO frames that contradict each other'
      from = Math.min(from, pieces[after]!)
      to = Math.max(to, pieces[after + 1]!)
    }
    pieces.splice(first, after - first, from, to)
    if (pieces.length > MAX_PIECES * 2) return `CRYPTO data in more than ${MAX_PIECES} pieces`
    this.#grow(end)
    this.#bytes.set(data, offset)
    return undefined
  }

  /** Index of the first piece that ends at `offset` or later. By halves: a datagram can have thousands of frames. */
  #firstPieceFrom(offset: number): number {
    let [low, high] = [0, this.#pieces.length / 2]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#pieces[middle * 2 + 1]! < offset) low = middle + 1
      else high = middle
    }
    return low * 2
  }

  #differs(offset: number, data: Uint8Array, pieceFrom: number, pieceTo: number): boolean {
    const from = Math.max(offset, pieceFrom)
    const to = Math.min(offset + data.length, pieceTo)
    for (let i = from; i < to; i++) if (this.#bytes[i] !== data[i - offset]) return true
    return false
  }

  #grow(end: number): void {
    if (end <= this.#bytes.length) return
    let size = FIRST_BYTES
    while (size < end) size *= 2
    const bytes = new Uint8Array(size)
    bytes.set(this.#bytes)
    this.#bytes = bytes
  }
}
