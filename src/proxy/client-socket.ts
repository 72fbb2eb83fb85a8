import { type Endpoint, type Family, familyOf } from '../net/address.ts'
import type { Outbox } from '../relay/outbox.ts'
import type { DatagramArena } from '../sys/datagram-arena.ts'
import { SyscallError } from '../sys/errno.ts'
import type { QueuedError } from '../sys/error-queue.ts'
import { EPOLLERR, EPOLLIN, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import {
  canSendSegments,
  setMark,
  setReceiveBuffer,
  setReceiveErrors,
  setReceiveTos,
  setReuseAddress,
  setTransparent,
  tryReceiveOffload,
} from '../sys/options.ts'
import { bindSocket, closeFd, openUdp, startConnect } from '../sys/socket.ts'
import { Overflow } from './overflow.ts'
import { type ReplyOutlet, takeErrors } from './reply-outlet.ts'

const READ_BATCH = 32
/**
 * Room for what waits at a stream's sockets: a tenth of a second at 100 Mbit/s, for the kernel doubles it. Its default holds 92 datagrams
 * of 1,400 bytes (net.core.rmem_default).
 */
export const STREAM_BUFFER_BYTES = 1024 * 1024

/** What a session hears of its client's socket. */
export interface ClientSide {
  /** Of the client, in a slot of the arena. */
  sendUp(slot: number): void
  onClientError(error: QueuedError): void
  onLost(slot: number, errno: number, datagrams: number): void
}

export interface ClientSocketParts {
  readonly loop: EventLoop
  readonly arena: DatagramArena
  readonly outbox: Outbox
}

/**
 * A session's own socket towards its client: bound to the original destination, connected to the client. The kernel brings it the
 * client's further datagrams, with a receive buffer of its own: what others send to the listener does not stand in their way.
 */
export class ClientSocket implements ReplyOutlet, EventTarget {
  readonly family: Family
  readonly needsFrom = false
  segments: boolean
  head = -1
  tail = -1
  fd: number
  readonly overflow = new Overflow()
  readonly #side: ClientSide
  readonly #parts: ClientSocketParts
  #watch: Watch | undefined

  private constructor(fd: number, family: Family, side: ClientSide, parts: ClientSocketParts) {
    this.fd = fd
    this.family = family
    this.segments = canSendSegments(fd)
    this.#side = side
    this.#parts = parts
  }

  /** From now on the client's datagrams wait in it. Undefined where it cannot be had: the port is taken, no descriptor. */
  static open(
    dst: Endpoint,
    client: Endpoint,
    mark: number,
    side: ClientSide,
    parts: ClientSocketParts,
  ): ClientSocket | undefined {
    const family = familyOf(dst.address)
    let fd = -1
    try {
      fd = openUdp(family)
      setTransparent(fd, family)
      setReuseAddress(fd) // the reply socket of that destination is there as well
      if (mark !== 0) setMark(fd, mark)
      setReceiveErrors(fd, family)
      setReceiveTos(fd, family)
      tryReceiveOffload(fd)
      setReceiveBuffer(fd, STREAM_BUFFER_BYTES)
      bindSocket(fd, dst)
    } catch (error) {
      if (fd >= 0) closeFd(fd)
      if (error instanceof SyscallError) return undefined
      throw error
    }
    if (startConnect(fd, client) === 0) return new ClientSocket(fd, family, side, parts)
    closeFd(fd)
    return undefined
  }

  /** Not before the listener has been emptied: what the client sent earlier waits there. False when it cannot be watched. */
  startReading(): boolean {
    if (this.fd < 0 || this.#watch !== undefined) return true
    try {
      this.#watch = this.#parts.loop.add(this.fd, EPOLLIN, this)
      return true
    } catch (error) {
      if (error instanceof SyscallError) return false // fs.epoll.max_user_watches, memory
      throw error
    }
  }

  onEvents(events: number): void {
    if ((events & EPOLLERR) !== 0) this.onEarlierError()
    if ((events & EPOLLIN) === 0 || this.fd < 0) return
    const { arena, outbox } = this.#parts
    const count = outbox.receive(this, READ_BATCH)
    for (let slot = arena.used - Math.max(0, count); slot < arena.used; slot++) this.#side.sendUp(slot)
    outbox.flushSoon()
  }

  onEarlierError(): void {
    takeErrors(this, (error) => this.#side.onClientError(error))
  }

  onLost(slot: number, errno: number, datagrams: number): void {
    this.#side.onLost(slot, errno, datagrams)
  }

  close(): void {
    if (this.fd < 0) return
    if (this.#watch === undefined) closeFd(this.fd)
    else this.#parts.loop.close(this.#watch)
    this.fd = -1
  }
}
