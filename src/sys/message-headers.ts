import { FixedMemory } from './fixed-memory.ts'
import { SOCKADDR_WORDS } from './sockaddr.ts'

// struct mmsghdr and struct iovec of 64-bit Linux (bits/socket.h, bits/types/struct_iovec.h): byte offsets
export const HEADER_BYTES = 64
const NAME_AT = 0
const NAME_LENGTH_AT = 8
const IOVEC_AT = 16
const IOVEC_COUNT_AT = 24
const CONTROL_AT = 32
const CONTROL_LENGTH_AT = 40
const FLAGS_AT = 48
const LENGTH_AT = 56
const IOVEC_BYTES = 16

/** Room for a sockaddr. */
export const NAME_WORDS = SOCKADDR_WORDS
export const NAME_BYTES = NAME_WORDS * 4

/**
 * The headers of messages for recvmmsg(2) and sendmmsg(2), each with room for a name and control messages. All lie at
 * fixed addresses, and are set up once.
 */
export class MessageHeaders {
  readonly #headers: FixedMemory
  readonly #iovecs: FixedMemory
  readonly names: FixedMemory
  readonly controls: FixedMemory
  /** Room for the control messages of one message. */
  readonly controlBytes: number

  constructor(count: number, controlBytes: number, iovecs = count) {
    this.controlBytes = controlBytes
    this.#headers = new FixedMemory(count * HEADER_BYTES)
    this.#iovecs = new FixedMemory(iovecs * IOVEC_BYTES)
    this.names = new FixedMemory(count * NAME_BYTES)
    this.controls = new FixedMemory(count * controlBytes)
    for (let i = 0; i < count; i++) {
      const at = i * HEADER_BYTES
      this.#headers.setLong(at + NAME_AT, this.names.address + i * NAME_BYTES)
      this.#headers.setLong(at + CONTROL_AT, this.controls.address + i * controlBytes)
    }
  }

  /** Of the header `i`, for the system calls. */
  addressOf(i: number): number {
    return this.#headers.address + i * HEADER_BYTES
  }

  /** Points an iovec at memory. */
  setIovec(iovec: number, address: number, bytes: number): void {
    this.#iovecs.setLong(iovec * IOVEC_BYTES, address)
    this.#iovecs.setSize(iovec * IOVEC_BYTES + 8, bytes)
  }

  /** The payload of message `i`: `count` iovecs from `first` on. */
  setPayload(i: number, first: number, count: number): void {
    this.#headers.setLong(i * HEADER_BYTES + IOVEC_AT, this.#iovecs.address + first * IOVEC_BYTES)
    this.#headers.setSize(i * HEADER_BYTES + IOVEC_COUNT_AT, count)
  }

  setNameLength(i: number, bytes: number): void {
    this.#headers.words[(i * HEADER_BYTES + NAME_LENGTH_AT) >>> 2] = bytes
    // a name without length is still looked at by sendmsg(2) on a connected socket: there must be none
    this.#headers.setLong(i * HEADER_BYTES + NAME_AT, bytes === 0 ? 0 : this.names.address + i * NAME_BYTES)
  }

  setControlLength(i: number, bytes: number): void {
    this.#headers.setSize(i * HEADER_BYTES + CONTROL_LENGTH_AT, bytes)
  }

  controlLength(i: number): number {
    return this.#headers.size(i * HEADER_BYTES + CONTROL_LENGTH_AT)
  }

  /** Of a received message: MSG_TRUNC and the like. */
  flags(i: number): number {
    return this.#headers.words[(i * HEADER_BYTES + FLAGS_AT) >>> 2]!
  }

  /** Bytes that were received, or sent. */
  length(i: number): number {
    return this.#headers.words[(i * HEADER_BYTES + LENGTH_AT) >>> 2]!
  }
}
