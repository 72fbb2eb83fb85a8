import { latin1 } from './latin1.ts'

// Bits of each symbol's code, RFC 7541 Appendix B. The code is canonical: among codes of one length, and from each length to the next,
// the codes are consecutive numbers in the order of the symbols. So the lengths alone say all. 256 is EOS.
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
  23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26,
  20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27,
  27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
  27, 27, 27, 26, 30,
]
const EOS = 256
const MAX_LENGTH = 30
const MAX_PADDING = 7 // bits, all of them 1: RFC 7541 §5.2

interface Code {
  /** The symbols, shortest code first. */
  readonly symbols: Uint16Array
  /** By length: how many codes have it. */
  readonly counts: Uint16Array
}

const CODE = codeOf(LENGTHS)

function codeOf(lengths: readonly number[]): Code {
  const order = [...lengths.keys()].sort((a, b) => lengths[a]! - lengths[b]! || a - b)
  const counts = new Uint16Array(MAX_LENGTH + 1)
  for (const length of lengths) counts[length]!++
  return { symbols: Uint16Array.from(order), counts }
}

/** The text (latin1) that `bytes` from `from` to `to` stand for; undefined when they are no such code, or are padded wrongly. */
export function huffmanText(bytes: Uint8Array, from: number, to: number): string | undefined {
  const { symbols, counts } = CODE
  const out = new Uint8Array(Math.ceil(((to - from) * 8) / 5)) // the shortest code has 5 bits
  let written = 0
  let length = 0
  let code = 0 // the bits of the symbol so far
  let first = 0 // the first code of this length
  let index = 0 // where its symbol stands
  for (let bit = from * 8; bit < to * 8; bit++) {
    length++
    code = (code << 1) | ((bytes[bit >> 3]! >> (7 - (bit & 7))) & 1)
    first <<= 1
    const count = counts[length]!
    if (code - first < count) {
      const symbol = symbols[index + code - first]!
      if (symbol === EOS) return undefined
      out[written++] = symbol
      length = code = first = index = 0
    } else {
      first += count
      index += count
    }
  }
  if (length > MAX_PADDING || code !== (1 << length) - 1) return undefined
  return latin1(out, 0, written)
}
