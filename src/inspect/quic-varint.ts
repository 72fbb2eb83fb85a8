/** Where the variable-length integer at `at` ends (RFC 9000 §16); -1 when that is behind `end`. */
export function varintEnd(bytes: Uint8Array, at: number, end: number): number {
  if (at >= end) return -1
  const after = at + (1 << (bytes[at]! >> 6))
  return after > end ? -1 : after
}

/** The integer at `at`, which varintEnd() has found whole. Above 2^53 it is rounded: bounds are far below. */
export function varint(bytes: Uint8Array, at: number): number {
  const after = at + (1 << (bytes[at]! >> 6))
  let value = bytes[at]! & 0x3f
  for (let i = at + 1; i < after; i++) value = value * 256 + bytes[i]!
  return value
}
