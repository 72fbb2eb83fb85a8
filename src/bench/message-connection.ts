import type { Endpoint } from '../net/address.ts'
import { EAGAIN, errnoName } from '../sys/errno.ts'
import { EPOLLIN, EPOLLOUT, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { setNoDelay, takeSocketError } from '../sys/options.ts'
import { openTcp, receive, startConnect, transmit } from '../sys/socket.ts'
import { bulkPattern } from './pattern.ts'

/** Number of the connection and of the message, 32 bits each, before the pattern's bytes. */
export const MESSAGE_HEADER_BYTES = 8
const READ_BYTES = 65_536
const OFFSETS = 65_521 // a prime: each connection has other bytes

const pattern = bulkPattern()
const received = Buffer.alloc(READ_BYTES)

/** Told of what a connection comes to. */
export interface MessageOwner {
  /** It is connected, and may send. */
  onReady(connection: MessageConnection): void
  /** The message that it sent has come back whole; it may send the next. */
  onReply(connection: MessageConnection): void
}

/** The client's end of a connection to an echo: one message on its way at a time, each compared with what comes back. */
export class MessageConnection implements EventTarget {
  /** When the message on its way was to be sent, in the loop's milliseconds; the owner's. */
  dueAt = 0
  readonly #loop: EventLoop
  readonly #owner: MessageOwner
  readonly #watch: Watch
  readonly #message: Buffer
  #isConnected = false
  #isBusy = false
  #sequence = 0
  #sent = 0
  #received = 0

  /** Dials `server` at once. `size`: bytes of a message. @throws Error when the kernel does not even try. */
  constructor(loop: EventLoop, owner: MessageOwner, server: Endpoint, number: number, size: number) {
    this.#loop = loop
    this.#owner = owner
    this.#message = Buffer.allocUnsafe(size)
    this.#message.writeUInt32BE(number, 0)
    const from = (number * 8_191) % OFFSETS
    pattern.copy(this.#message, MESSAGE_HEADER_BYTES, from, from + size - MESSAGE_HEADER_BYTES)
    const fd = openTcp(4)
    setNoDelay(fd)
    this.#watch = loop.take(fd, EPOLLOUT, this)
    const errno = startConnect(fd, server)
    if (errno !== 0) throw new Error(`connect: ${errnoName(errno)}`)
  }

  /** Whether a message is on its way, or the connection is not up yet. */
  get isBusy(): boolean {
    return this.#isBusy || !this.#isConnected
  }

  /** Sends the next message. Only when it is not busy. */
  send(): void {
    this.#message.writeUInt32BE(this.#sequence++ >>> 0, 4)
    this.#sent = 0
    this.#received = 0
    this.#isBusy = true
    this.#push()
    if (this.#sent < this.#message.length) this.#loop.modify(this.#watch, EPOLLIN | EPOLLOUT)
  }

  close(): void {
    this.#loop.close(this.#watch)
  }

  /** @throws Error when the connection fails, ends, or brings other bytes than were sent. */
  onEvents(events: number): void {
    if (!this.#isConnected) {
      this.#onConnected()
      return
    }
    if ((events & EPOLLOUT) !== 0 && this.#sent < this.#message.length) {
      this.#push()
      if (this.#sent === this.#message.length) this.#loop.modify(this.#watch, EPOLLIN)
    }
    if ((events & ~EPOLLOUT) !== 0) this.#pull()
  }

  #onConnected(): void {
    const errno = takeSocketError(this.#watch.fd)
    if (errno !== 0) throw new Error(`connect: ${errnoName(errno)}`)
    this.#isConnected = true
    this.#loop.modify(this.#watch, EPOLLIN)
    this.#owner.onReady(this)
  }

  #push(): void {
    const rest = this.#sent === 0 ? this.#message : this.#message.subarray(this.#sent)
    const count = transmit(this.#watch.fd, rest, rest.length)
    if (count < 0 && count !== -EAGAIN) throw new Error(`send: ${errnoName(-count)}`)
    this.#sent += Math.max(0, count)
  }

  #pull(): void {
    const count = receive(this.#watch.fd, received, READ_BYTES)
    if (count === -EAGAIN) return
    if (count < 0) throw new Error(`receive: ${errnoName(-count)}`)
    if (count === 0) throw new Error('the server ended a connection')
    const end = this.#received + count
    const isRight =
      this.#isBusy && end <= this.#sent && received.compare(this.#message, this.#received, end, 0, count) === 0
    if (!isRight) throw new Error('the bytes received are not the bytes sent')
    this.#received = end
    if (end < this.#message.length) return
    this.#isBusy = false
    this.#owner.onReply(this)
  }
}
