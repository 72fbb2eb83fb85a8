import type { Family } from '../net/address.ts'
import { LOW_WORD } from './byte-order.ts'
import { ffi, lastErrno } from './ffi.ts'
import { MessageHeaders, NAME_WORDS } from './message-headers.ts'

const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MESSAGES = 128
const IOVECS = 256
const CONTROL_BYTES = 96 // packet info 40, TOS 24, segment size 24
const CMSG_HEADER_BYTES = 16

// sockaddr_in is 16 bytes, sockaddr_in6 28: netinet/in.h
const NAME_LENGTH = { 4: 16, 6: 28 } as const

/** The datagrams that sendmmsg(2) sends in one call, from memory that stays where it is. */
export class SendQueue {
  readonly #headers = new MessageHeaders(MESSAGES, CONTROL_BYTES, IOVECS)
  #messages = 0
  #iovecs = 0
  #first = 0
  #control = 0

  get messages(): number {
    return this.#messages
  }

  /** Is there room for another message of `pieces` pieces? */
  hasRoom(pieces: number): boolean {
    return this.#messages < MESSAGES && this.#iovecs + pieces <= IOVECS
  }

  /** Begins a message without a name: for a connected socket. */
  begin(): void {
    this.#first = this.#iovecs
    this.#control = 0
    this.#headers.setNameLength(this.#messages, 0)
  }

  /** To whom the message goes: the words of a sockaddr. */
  to(family: Family, words: Uint32Array, at: number): void {
    const names = this.#headers.names.words
    const place = this.#messages * NAME_WORDS
    for (let i = 0; i < NAME_WORDS; i++) names[place + i] = words[at + i]!
    this.#headers.setNameLength(this.#messages, NAME_LENGTH[family])
  }

  /** The address that the message comes from: that of a sockaddr (IP_PKTINFO, IPV6_PKTINFO; foreign ones need IP_TRANSPARENT). */
  from(family: Family, words: Uint32Array, at: number): void {
    const place = this.#cmsg(family === 4 ? 0 : 41, family === 4 ? 8 : 50, family === 4 ? 12 : 20)
    const control = this.#headers.controls.words
    if (family === 4) {
      control[place] = 0 // interface: by the route
      control[place + 1] = words[at + 1]! // spec_dst
      control[place + 2] = 0
    } else {
      for (let i = 0; i < 4; i++) control[place + i] = words[at + 2 + i]!
      control[place + 4] = 0
    }
  }

  /** TOS or traffic class of the message (ip(7), IP_TOS as a control message; RFC 3542 §6.5). */
  tos(family: Family, value: number): void {
    const place = this.#cmsg(family === 4 ? 0 : 41, family === 4 ? 1 : 67, 4)
    this.#headers.controls.words[place] = value
  }

  /** The message's bytes are datagrams of this size, the last perhaps shorter (UDP_SEGMENT, Linux 4.18). */
  segment(bytes: number): void {
    const place = this.#cmsg(17, 103, 2)
    const at = place * 4
    this.#headers.controls.bytes[at + LOW_WORD] = bytes & 0xff
    this.#headers.controls.bytes[at + 1 - LOW_WORD] = bytes >>> 8
  }

  /** Adds bytes to the message that was begun. */
  piece(address: number, bytes: number): void {
    this.#headers.setIovec(this.#iovecs++, address, bytes)
  }

  end(): void {
    this.#headers.setPayload(this.#messages, this.#first, this.#iovecs - this.#first)
    this.#headers.setControlLength(this.#messages, this.#control)
    this.#messages++
  }

  /** Sends the messages from `first` on: how many the kernel took, or the negative errno of that first one. */
  send(fd: number, first: number): number {
    const count = ffi.sendmmsg(fd, this.#headers.addressOf(first), this.#messages - first, MSG_DONTWAIT | MSG_NOSIGNAL)
    return count < 0 ? -lastErrno() : count
  }

  clear(): void {
    this.#messages = 0
    this.#iovecs = 0
  }

  /** Room for one control message: the index of its first word of data. */
  #cmsg(level: number, type: number, bytes: number): number {
    const words = this.#headers.controls.words
    const at = (this.#messages * CONTROL_BYTES + this.#control) >>> 2
    words[at + LOW_WORD] = CMSG_HEADER_BYTES + bytes
    words[at + 1 - LOW_WORD] = 0
    words[at + 2] = level
    words[at + 3] = type
    this.#control += CMSG_HEADER_BYTES + ((bytes + 7) & ~7)
    return at + CMSG_HEADER_BYTES / 4
  }
}
