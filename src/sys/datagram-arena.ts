import { LOW_WORD } from './byte-order.ts'
import { ffi, lastErrno } from './ffi.ts'
import { FixedMemory } from './fixed-memory.ts'
import { MessageHeaders, NAME_BYTES, NAME_WORDS } from './message-headers.ts'

const MSG_DONTWAIT = 0x40
const CONTROL_BYTES = 144 // original destination 48, TOS 24, segment size 24, packet info 40
const CMSG_HEADER_WORDS = 4 // size_t length, int level, int type: linux/socket.h

// level << 8 | type of the control messages that we ask for
const ORIGDSTADDR = (0 << 8) | 20 // IP_ORIGDSTADDR
const PKTINFO = (0 << 8) | 8 // IP_PKTINFO: struct in_pktinfo begins with the interface
const TOS = (0 << 8) | 1 // IP_TOS
const V6_ORIGDSTADDR = (41 << 8) | 74
const V6_PKTINFO = (41 << 8) | 50 // struct in6_pktinfo: the interface is behind the address
const V6_TCLASS = (41 << 8) | 67
const GRO = (17 << 8) | 104 // UDP_GRO

/** Datagrams that lie in the arena at once. */
export const SLOTS = 128
/** The largest datagram (65,535 with its headers), and some more: slots at a distance of 64 KiB share one set of the CPU's cache. */
const SLOT_BYTES = 65_536 + 320

/**
 * Memory for datagrams on their way through: a received one stays in its slot until it has been sent. Filled by recvmmsg(2) in
 * batches, emptied as a whole. What belongs to a slot lies in arrays beside it.
 */
export class DatagramArena {
  readonly #payload = new FixedMemory(SLOTS * SLOT_BYTES)
  readonly #headers = new MessageHeaders(SLOTS, CONTROL_BYTES)
  /** Slots that hold a datagram: 0 to `used` - 1. */
  used = 0
  /** Bytes in each slot. */
  readonly length = new Int32Array(SLOTS)
  /** 0, or the size of the datagrams that the slot holds, one behind the other (UDP_GRO); the last may be shorter. */
  readonly segment = new Int32Array(SLOTS)
  /** TOS or traffic class; 0 when it was not asked for. */
  readonly tos = new Int32Array(SLOTS)
  /** Index of the interface that it came by; 0 when it was not asked for. */
  readonly interfaces = new Int32Array(SLOTS)
  /** The sender's sockaddr: NAME_WORDS words for each slot, as the kernel wrote it. */
  readonly senders: Uint32Array
  /** The original destination's sockaddr, when it was asked for: NAME_WORDS words for each slot. */
  readonly destinations = new Uint32Array(SLOTS * NAME_WORDS)

  constructor() {
    this.senders = this.#headers.names.words
    for (let slot = 0; slot < SLOTS; slot++) {
      this.#headers.setIovec(slot, this.addressOf(slot), SLOT_BYTES)
      this.#headers.setPayload(slot, slot, 1)
      this.#expect(slot)
    }
  }

  /** Where the bytes of a slot begin, for the system calls. */
  addressOf(slot: number): number {
    return this.#payload.address + slot * SLOT_BYTES
  }

  /** The datagrams of a slot, which has several when they came as a train: the memory itself, not copies. */
  datagramsOf(slot: number): Uint8Array[] {
    const bytes = this.bytesOf(slot)
    const size = this.segment[slot]! || bytes.length
    return Array.from({ length: Math.max(1, Math.ceil(bytes.length / size)) }, (_, i) =>
      bytes.subarray(i * size, (i + 1) * size),
    )
  }

  /** The bytes of a slot: the memory itself, not a copy. */
  bytesOf(slot: number): Uint8Array {
    const at = slot * SLOT_BYTES
    return this.#payload.bytes.subarray(at, at + this.length[slot]!)
  }

  /** Puts other bytes into a slot. */
  replace(slot: number, bytes: Uint8Array): void {
    this.#payload.bytes.set(bytes, slot * SLOT_BYTES)
    this.length[slot] = bytes.length
    this.segment[slot] = 0
  }

  /** Puts a datagram that came earlier into the next slot, which must be free. Sender and destination: words of sockaddrs. */
  add(bytes: Uint8Array, sender: Uint32Array, destination: Uint32Array, tos: number): number {
    const slot = this.used++
    this.replace(slot, bytes)
    this.tos[slot] = tos
    this.interfaces[slot] = 0
    this.senders.set(sender, slot * NAME_WORDS)
    this.destinations.set(destination, slot * NAME_WORDS)
    return slot
  }

  /**
   * Takes up to `most` datagrams that wait at a socket into the slots from `used` on.
   * @returns their number, or the negative errno: -EAGAIN when none waits, an ICMP error of a connected socket, EMFILE …
   */
  receive(fd: number, most: number): number {
    const from = this.used
    const count = ffi.recvmmsg(fd, this.#headers.addressOf(from), Math.min(most, SLOTS - from), MSG_DONTWAIT, null)
    if (count < 0) return -lastErrno()
    for (let slot = from; slot < from + count; slot++) {
      this.length[slot] = this.#headers.length(slot)
      this.segment[slot] = 0
      this.tos[slot] = 0
      this.interfaces[slot] = 0
      this.#readControl(slot)
      this.#expect(slot)
    }
    this.used = from + count
    return count
  }

  /** The kernel writes over these lengths. */
  #expect(slot: number): void {
    this.#headers.setNameLength(slot, NAME_BYTES)
    this.#headers.setControlLength(slot, CONTROL_BYTES)
  }

  #readControl(slot: number): void {
    const words = this.#headers.controls.words
    let at = (slot * CONTROL_BYTES) >>> 2
    const end = at + (this.#headers.controlLength(slot) >>> 2)
    while (at + CMSG_HEADER_WORDS < end) {
      const bytes = words[at + LOW_WORD]!
      if (bytes < CMSG_HEADER_WORDS * 4) return
      this.#readOne(slot, (words[at + 2]! << 8) | words[at + 3]!, words, at + CMSG_HEADER_WORDS)
      at += ((bytes + 7) >>> 3) << 1
    }
  }

  #readOne(slot: number, kind: number, words: Uint32Array, at: number): void {
    switch (kind) {
      case ORIGDSTADDR:
        this.#setDestination(slot, words, at, 2)
        break
      case V6_ORIGDSTADDR:
        this.#setDestination(slot, words, at, 7)
        break
      case PKTINFO:
        this.interfaces[slot] = words[at]!
        break
      case V6_PKTINFO:
        this.interfaces[slot] = words[at + 4]!
        break
      case TOS:
        this.tos[slot] = this.#headers.controls.bytes[at * 4]! // one byte: ip_cmsg_recv_tos(), net/ipv4/ip_sockglue.c
        break
      case V6_TCLASS:
        this.tos[slot] = words[at]!
        break
      case GRO:
        // also for a datagram that came alone
        if (words[at]! < this.length[slot]!) this.segment[slot] = words[at]!
        break
    }
  }

  #setDestination(slot: number, words: Uint32Array, at: number, count: number): void {
    const to = slot * NAME_WORDS
    for (let i = 0; i < count; i++) this.destinations[to + i] = words[at + i]!
  }
}
