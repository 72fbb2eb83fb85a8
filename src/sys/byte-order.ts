/** Whether this machine has the low byte of a number first. */
export const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** Of the two 32-bit words of a size_t or an address on 64-bit Linux, the one with the low half. */
export const LOW_WORD = littleEndian ? 0 : 1
export const HIGH_WORD = 1 - LOW_WORD
