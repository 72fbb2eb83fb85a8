/** Messages of a DNS stream: two bytes of length before each (RFC 1035 §4.2.2). Holds at most one message and one chunk. */
export class MessageFrames {
  #held: Buffer = Buffer.alloc(0)
  #at = 0

  push(chunk: Buffer): void {
    this.#held = this.#at === this.#held.length ? chunk : Buffer.concat([this.#held.subarray(this.#at), chunk])
    this.#at = 0
  }

  /** The next whole message, the caller's to change; undefined: more is needed. */
  next(): Buffer | undefined {
    const left = this.#held.length - this.#at
    if (left < 2) return undefined
    const length = this.#held.readUInt16BE(this.#at)
    if (left < 2 + length) return undefined
    const from = this.#at + 2
    this.#at = from + length
    return this.#held.subarray(from, this.#at)
  }
}

/** A message with its length before it. */
export function framed(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(2 + message.length)
  frame.writeUInt16BE(message.length, 0)
  frame.set(message, 2)
  return frame
}
