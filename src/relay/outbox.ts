import type { Family } from '../net/address.ts'
import { type DatagramArena, SLOTS } from '../sys/datagram-arena.ts'
import { EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE } from '../sys/errno.ts'
import type { EventLoop } from '../sys/loop.ts'
import { SendQueue } from '../sys/send-queue.ts'

const MAX_SEGMENTS = 64 // UDP_MAX_SEGMENTS before Linux 6.5, include/linux/udp.h
const MAX_SEGMENTED_BYTES = 65_000 // with its headers a train of segments is one packet of at most 65,535 bytes
const NONE = -1

/** A socket that datagrams leave by. */
export interface Outlet {
  /** -1 once it is closed. */
  readonly fd: number
  readonly family: Family
  /** Datagrams of one size go out together (UDP_SEGMENT). Switched off when the route's device cannot. */
  segments: boolean
  /** Sends by itself what the queue of the kernel's messages cannot say; undefined for ordinary UDP sockets. */
  readonly sendAlone?: (slot: number, to: Sockaddr, from: Sockaddr) => void
  /** First and last slot that wait to be sent; -1: none. The outbox's own. */
  head: number
  tail: number
  /** The kernel had an error of an earlier datagram to tell (ICMP). Nothing was lost by the telling. */
  onEarlierError(errno: number): void
  /** Datagrams that the kernel did not take; `slot` holds the first. */
  onLost(slot: number, errno: number, datagrams: number): void
}

/** The other end of a datagram, and ours: the words of sockaddrs. */
export interface Sockaddr {
  readonly words: Uint32Array
  readonly at: number
}

/**
 * Sends what lies in the arena's slots: for each outlet in the order in which it was put, many datagrams in one system call,
 * and those of one size towards one peer as one train. Empty after each flush, and so is the arena.
 */
export class Outbox {
  readonly #arena: DatagramArena
  readonly #loop: EventLoop
  readonly #queue = new SendQueue()
  readonly #next = new Int32Array(SLOTS)
  readonly #to: (Sockaddr | undefined)[] = Array.from({ length: SLOTS }, () => undefined)
  readonly #from: (Sockaddr | undefined)[] = Array.from({ length: SLOTS }, () => undefined)
  readonly #outlets: Outlet[] = []
  /** Of each message in the queue: its first slot, and how many datagrams it has. */
  readonly #slotOf = new Int32Array(SLOTS)
  readonly #datagramsOf = new Int32Array(SLOTS)
  #isScheduled = false
  #flushing = false

  constructor(arena: DatagramArena, loop: EventLoop) {
    this.#arena = arena
    this.#loop = loop
  }

  /**
   * Receives into the arena; flushes before when it has no room for `most`. As DatagramArena.receive(); 0 when the socket has been closed
   * by then, which flushing may have led to.
   */
  receive(socket: { readonly fd: number }, most: number): number {
    if (SLOTS - this.#arena.used < most) this.flush()
    return socket.fd < 0 ? 0 : this.#arena.receive(socket.fd, most)
  }

  /** As DatagramArena.add(); flushes before when it has no room. */
  add(...datagram: Parameters<DatagramArena['add']>): number {
    if (this.#arena.used === SLOTS) this.flush()
    return this.#arena.add(...datagram)
  }

  /** Sends a slot by an outlet: to the peer of a connected socket, or `to` somebody; `from` an address that is not the socket's own. */
  put(outlet: Outlet, slot: number, to?: Sockaddr, from?: Sockaddr): void {
    this.#next[slot] = NONE
    this.#to[slot] = to
    this.#from[slot] = from
    if (outlet.head === NONE) {
      outlet.head = slot
      this.#outlets.push(outlet)
    } else this.#next[outlet.tail] = slot
    outlet.tail = slot
  }

  /** Flushes once the events that epoll reported together have all been seen. */
  flushSoon(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#loop.afterEvents(() => {
      this.#isScheduled = false
      this.flush()
    })
  }

  flush(): void {
    if (this.#flushing) return // an outlet's error handler came here
    this.#flushing = true
    try {
      for (const outlet of this.#outlets) this.#sendAll(outlet)
    } finally {
      this.#outlets.length = 0
      this.#arena.used = 0
      this.#flushing = false
    }
  }

  #sendAll(outlet: Outlet): void {
    let slot = outlet.head
    outlet.head = NONE
    if (outlet.fd < 0) return // closed meanwhile
    if (outlet.sendAlone !== undefined) {
      for (; slot !== NONE; slot = this.#next[slot]!) outlet.sendAlone(slot, this.#to[slot]!, this.#from[slot]!)
      return
    }
    while (slot !== NONE) {
      this.#queue.clear()
      while (slot !== NONE && this.#queue.hasRoom(MAX_SEGMENTS)) slot = this.#addMessage(outlet, slot, true)
      this.#send(outlet)
    }
  }

  /** Adds one message with the datagrams from `slot` on, as many as can go together; returns the slot after them. */
  #addMessage(outlet: Outlet, slot: number, joins: boolean): number {
    const { length, segment } = this.#arena
    const size = segment[slot] || length[slot]!
    if (segment[slot]! > 0 && !(outlet.segments && joins)) return this.#addSplit(outlet, slot, size)
    this.#begin(outlet, slot)
    let last = slot
    let bytes = length[slot]!
    let datagrams = size === 0 ? 1 : Math.ceil(bytes / size)
    this.#queue.piece(this.#arena.addressOf(slot), bytes)
    let next = this.#next[slot]!
    while (joins && outlet.segments && next !== NONE && size > 0 && bytes % size === 0) {
      const more = length[next]!
      const fits = segment[next]! > 0 ? segment[next] === size : more <= size && more > 0
      const count = Math.ceil(more / size)
      if (!fits || datagrams + count > MAX_SEGMENTS || bytes + more > MAX_SEGMENTED_BYTES) break
      if (!this.#goesAlong(last, next)) break
      this.#queue.piece(this.#arena.addressOf(next), more)
      bytes += more
      datagrams += count
      last = next
      next = this.#next[next]!
    }
    if (datagrams > 1) this.#queue.segment(size)
    this.#end(slot, datagrams)
    return next
  }

  /** A train that must be sent as single datagrams. */
  #addSplit(outlet: Outlet, slot: number, size: number): number {
    const bytes = this.#arena.length[slot]!
    for (let at = 0; at < bytes; at += size) {
      if (!this.#queue.hasRoom(1)) {
        this.#send(outlet)
        this.#queue.clear()
      }
      this.#begin(outlet, slot)
      this.#queue.piece(this.#arena.addressOf(slot) + at, Math.min(size, bytes - at))
      this.#end(slot, 1)
    }
    return this.#next[slot]!
  }

  #begin({ family }: Outlet, slot: number): void {
    const to = this.#to[slot]
    const from = this.#from[slot]
    const tos = this.#arena.tos[slot]!
    this.#queue.begin()
    if (to !== undefined) this.#queue.to(family, to.words, to.at)
    if (from !== undefined) this.#queue.from(family, from.words, from.at)
    if (tos !== 0) this.#queue.tos(family, tos)
  }

  #end(slot: number, datagrams: number): void {
    const message = this.#queue.messages
    this.#slotOf[message] = slot
    this.#datagramsOf[message] = datagrams
    this.#queue.end()
  }

  /** Same peer, same source, same TOS. */
  #goesAlong(a: number, b: number): boolean {
    return this.#to[a] === this.#to[b] && this.#from[a] === this.#from[b] && this.#arena.tos[a] === this.#arena.tos[b]
  }

  #send(outlet: Outlet): void {
    const queue = this.#queue
    let message = 0
    let earlier = 0
    while (message < queue.messages) {
      const sent = queue.send(outlet.fd, message)
      if (sent > 0) {
        message += sent
        if (earlier !== 0) outlet.onEarlierError(earlier)
        earlier = 0
        continue
      }
      const errno = -sent
      if (errno === EINTR) continue
      if (earlier === 0 && errno !== EAGAIN) {
        earlier = errno // if it was an earlier datagram's, the telling has cleared it, and the same call goes through
        continue
      }
      earlier = 0
      const datagrams = this.#datagramsOf[message]!
      if (datagrams > 1 && UNSEGMENTED.has(errno)) {
        if (errno !== EMSGSIZE) outlet.segments = false
        this.#rescue(outlet, message)
        return
      }
      outlet.onLost(this.#slotOf[message]!, errno, datagrams)
      message++
      if (outlet.fd < 0) return
    }
  }

  /** Sends what is left of the queue's messages as single datagrams: the route cannot carry a train of this size. */
  #rescue(outlet: Outlet, message: number): void {
    const left: number[] = []
    const messages = this.#queue.messages
    for (let i = message; i < messages; i++) {
      const end = i + 1 < messages ? this.#slotOf[i + 1]! : NONE
      // all slots of a message, which follow each other; those behind the last message are not in the queue yet
      let slot = this.#slotOf[i]!
      for (let datagrams = this.#datagramsOf[i]!; datagrams > 0 && slot !== end && slot !== NONE; ) {
        left.push(slot)
        const size = this.#arena.segment[slot]!
        datagrams -= size > 0 ? Math.ceil(this.#arena.length[slot]! / size) : 1
        slot = this.#next[slot]!
      }
    }
    for (const slot of new Set(left)) {
      this.#queue.clear()
      this.#addMessage(outlet, slot, false)
      this.#sendSingly(outlet)
    }
  }

  #sendSingly(outlet: Outlet): void {
    for (let message = 0; message < this.#queue.messages && outlet.fd >= 0; message++) {
      const sent = this.#queue.send(outlet.fd, message)
      if (sent > 0) message += sent - 1
      else outlet.onLost(this.#slotOf[message]!, -sent, 1)
    }
  }
}

/** What sending a train fails with where single datagrams may go: too large for the path, or for the device. */
const UNSEGMENTED: ReadonlySet<number> = new Set([EINVAL, EMSGSIZE, EIO])
