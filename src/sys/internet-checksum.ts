/** The Internet checksum (RFC 1071) of several pieces, each but the last of even length; `start` is a sum to begin with. */
export function internetChecksum(pieces: readonly Uint8Array[], start = 0): number {
  let sum = start
  for (const bytes of pieces) {
    const even = bytes.length & ~1
    for (let i = 0; i < even; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!
    if (even < bytes.length) sum += bytes[even]! << 8
  }
  // no sum of 65,535 bytes leaves the range of exact numbers
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000)
  return ~sum & 0xffff
}
