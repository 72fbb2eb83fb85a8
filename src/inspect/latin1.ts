/** The bytes from `from` to `to`, each as the character of its number: nothing is lost, and nothing is more than one character. */
export function latin1(bytes: Uint8Array, from = 0, to = bytes.length): string {
  return Buffer.prototype.latin1Slice.call(bytes, from, to)
}
