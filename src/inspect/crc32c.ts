const POLYNOMIAL = 0x82f63b78 // Castagnoli's, its bits mirrored: RFC 9260 Appendix A
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1
  return value
})

/** CRC-32C of all bytes, as an unsigned number. Those from `zeroAt` on, four of them, count as zeros: there the sum itself stands. */
export function crc32c(bytes: Uint8Array, zeroAt = -1): number {
  let sum = 0xffff_ffff
  for (let i = 0; i < bytes.length; i++) {
    const byte = zeroAt >= 0 && i >= zeroAt && i < zeroAt + 4 ? 0 : bytes[i]!
    sum = (sum >>> 8) ^ TABLE[(sum ^ byte) & 0xff]!
  }
  return ~sum >>> 0
}
