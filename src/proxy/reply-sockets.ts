import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import { Allowance } from '../relay/allowance.ts'
import type { Outbox, Sockaddr } from '../relay/outbox.ts'
import { littleEndian } from '../sys/byte-order.ts'
import type { DatagramArena } from '../sys/datagram-arena.ts'
import { EADDRINUSE, errnoName, SyscallError } from '../sys/errno.ts'
import type { QueuedError } from '../sys/error-queue.ts'
import { EPOLLERR, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { canSendSegments } from '../sys/options.ts'
import { isIpv6Word, sockaddrWords } from '../sys/sockaddr.ts'
import { udpPortOwner } from '../sys/socket-owner.ts'
import { type ClientSide, ClientSocket } from './client-socket.ts'
import { openReply } from './open-udp.ts'
import { RawOutlet } from './raw-outlet.ts'
import { type ReplyOutlet, takeErrors } from './reply-outlet.ts'

/** How long a socket that no session needs stays for the next one. */
const KEEP_MS = 30_000
/** How long a bind that failed is not tried again. */
const FAILED_MS = 60_000
const MAX_FAILED = 1_024
const NOTES_AT_ONCE = 5
const NOTE_EVERY_MS = 60_000

export interface ReplySocketsOptions {
  readonly loop: EventLoop
  readonly arena: DatagramArena
  /** fwmark of the answers: that of intercepted packets, by which the rules know these sockets from those of sessions. */
  readonly mark: number
  /** Sockets at once; beyond it answers go by a raw socket. */
  readonly most: number
  /** Is this an address of this host? A socket there would take datagrams away from others. */
  isOwn(address: string): boolean
  /** Whom an answer did not reach, and why: an ICMP error of a client's host. */
  onError(client: Uint32Array, from: ReplySocket, error: QueuedError): void
  onLost(errno: number, datagrams: number): void
  note(line: string): void
}

/**
 * The sockets by which answers leave from the addresses that clients asked: one for each original destination, shared by its
 * sessions, bound there (IP_TRANSPARENT) and not connected. Where a bind fails, because another process has the port, or would
 * lose datagrams by it, answers go by a raw socket.
 */
export class ReplySockets {
  readonly #options: ReplySocketsOptions
  readonly #sockets = new Map<number | string, ReplySocket>()
  readonly #idle = new Set<ReplySocket>() // oldest first
  readonly #failed = new Map<number | string, number>()
  readonly #raw: Partial<Record<Family, RawOutlet>> = {}
  readonly #notes = new Allowance(NOTES_AT_ONCE, NOTE_EVERY_MS)
  #owned = 0
  #closed = false
  /** Datagrams that went by a raw socket. */
  rawDatagrams = 0

  constructor(options: ReplySocketsOptions) {
    this.#options = options
  }

  get open(): number {
    return this.#sockets.size + this.#owned
  }

  /** The way for answers from `dst`; give it back by release(). Undefined when there is none (no descriptor, no capability). */
  acquire(dst: Sockaddr, endpoint: () => Endpoint): ReplyOutlet | undefined {
    const key = keyOf(dst)
    const known = this.#sockets.get(key)
    if (known !== undefined) {
      if (known.users++ === 0) this.#idle.delete(known)
      return known
    }
    const { now } = this.#options.loop
    const failedAt = this.#failed.get(key)
    if (failedAt !== undefined && now - failedAt < FAILED_MS) return this.#rawOutlet(familyOf(endpoint().address))
    const socket = this.#bind(key, endpoint())
    return socket ?? this.#rawOutlet(familyOf(endpoint().address))
  }

  /** A socket of a session's own in place of a shared one; undefined where there can be none. Give it back by release(). */
  own(dst: Endpoint, client: Endpoint, side: ClientSide, outbox: Outbox): ClientSocket | undefined {
    const { most, isOwn, loop, arena, mark } = this.#options
    if (this.open >= most || isOwn(dst.address)) return undefined
    const socket = ClientSocket.open(dst, client, mark, side, { loop, arena, outbox })
    if (socket !== undefined) this.#owned++
    return socket
  }

  release(outlet: ReplyOutlet): void {
    if (outlet instanceof ClientSocket) {
      outlet.close()
      this.#owned--
      return
    }
    if (!(outlet instanceof ReplySocket) || --outlet.users > 0) return
    outlet.idleSince = this.#options.loop.now
    this.#idle.add(outlet)
    if (this.#closed) this.#drop(outlet)
  }

  /** To be called now and then: closes sockets that nobody has needed for a while. */
  sweep(now: number): void {
    for (const socket of this.#idle) {
      if (now - socket.idleSince < KEEP_MS) return
      this.#drop(socket)
    }
  }

  close(): void {
    this.#closed = true
    for (const socket of this.#sockets.values()) this.#drop(socket)
    this.#raw[4]?.close()
    this.#raw[6]?.close()
    delete this.#raw[4]
    delete this.#raw[6]
  }

  #bind(key: number | string, endpoint: Endpoint): ReplySocket | undefined {
    const { most, isOwn, loop, mark } = this.#options
    if (isOwn(endpoint.address)) return undefined
    if (this.open >= most && !this.#dropOldestIdle()) return undefined
    try {
      const socket = new ReplySocket(key, openReply(endpoint, mark), endpoint, this.#options)
      socket.watch = loop.take(socket.fd, 0, socket) // errors are always told
      this.#sockets.set(key, socket)
      return socket
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error
      if (this.#failed.size >= MAX_FAILED) this.#failed.clear()
      this.#failed.set(key, loop.now)
      this.#tell(endpoint, error.errno)
      return undefined
    }
  }

  #dropOldestIdle(): boolean {
    for (const socket of this.#idle) {
      this.#drop(socket)
      return true
    }
    return false
  }

  #drop(socket: ReplySocket): void {
    this.#idle.delete(socket)
    this.#sockets.delete(socket.key)
    socket.close()
  }

  #rawOutlet(family: Family): RawOutlet | undefined {
    const known = this.#raw[family]
    if (known !== undefined || this.#closed) return known
    try {
      const raw = new RawOutlet(family, this.#options, (datagrams) => {
        this.rawDatagrams += datagrams
      })
      this.#raw[family] = raw
      return raw
    } catch (error) {
      if (error instanceof SyscallError) return undefined // of CAP_NET_RAW, or of descriptors, there are none
      throw error
    }
  }

  /** Once for an address and port in a minute, and not too often in all. */
  #tell(endpoint: Endpoint, errno: number): void {
    const now = performance.now()
    if (this.#notes.waitMs(now) > 0) return
    this.#notes.take(now)
    const what = `answers from ${formatEndpoint(endpoint)} go by a raw socket: ${errnoName(errno)}`
    if (errno !== EADDRINUSE) {
      this.#options.note(what)
      return
    }
    void udpPortOwner(endpoint.port, familyOf(endpoint.address))
      .catch(() => undefined)
      .then((owner) => this.#options.note(`${what}: ${owner ?? 'another process'} has the port ${endpoint.port}`))
  }
}

/** A socket bound to an original destination. */
export class ReplySocket implements ReplyOutlet, EventTarget {
  readonly key: number | string
  fd: number
  /** What it is bound to: the words of a sockaddr. */
  readonly address: Uint32Array
  readonly family: Family
  readonly needsFrom = false
  readonly #options: ReplySocketsOptions
  watch: Watch | undefined
  users = 1
  idleSince = 0
  segments: boolean
  head = -1
  tail = -1

  constructor(key: number | string, fd: number, endpoint: Endpoint, options: ReplySocketsOptions) {
    this.key = key
    this.fd = fd
    this.address = sockaddrWords(endpoint)
    this.family = familyOf(endpoint.address)
    this.#options = options
    this.segments = canSendSegments(fd)
  }

  onEvents(events: number): void {
    if ((events & EPOLLERR) !== 0) this.#takeErrors()
  }

  onEarlierError(): void {
    this.#takeErrors()
  }

  onLost(_slot: number, errno: number, datagrams: number): void {
    this.#options.onLost(errno, datagrams)
  }

  close(): void {
    if (this.watch !== undefined) this.#options.loop.close(this.watch)
    this.watch = undefined
    this.fd = -1
  }

  #takeErrors(): void {
    takeErrors(this, (error) => this.#options.onError(error.to, this, error))
  }
}

/** A number for IPv4: the address, and the first word without the family, which is the port as it stands, fit in 48 bits. */
function keyOf({ words, at }: Sockaddr): number | string {
  const first = words[at]!
  if (isIpv6Word(first)) return `${first} ${words[at + 2]} ${words[at + 3]} ${words[at + 4]} ${words[at + 5]}`
  return words[at + 1]! * 0x1_0000 + (littleEndian ? first >>> 16 : first & 0xffff)
}
