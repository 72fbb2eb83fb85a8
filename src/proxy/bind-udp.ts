import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import { Outbox, type Outlet } from '../relay/outbox.ts'
import { Conntrack } from '../sys/conntrack.ts'
import { DatagramArena } from '../sys/datagram-arena.ts'
import { EAGAIN, EMSGSIZE, ENOBUFS, errnoName } from '../sys/errno.ts'
import { EPOLLIN, type EventTarget, eventLoop, type Watch } from '../sys/loop.ts'
import { canSendSegments } from '../sys/options.ts'
import { OwnAddresses } from '../sys/own-addresses.ts'
import { decodeSockaddrWords, SOCKADDR_WORDS, sockaddrWords } from '../sys/sockaddr.ts'
import { localEndpoint } from '../sys/socket.ts'
import { expectEndpoint } from './expect-endpoint.ts'
import { openBound } from './open-udp.ts'
import { ReplySockets } from './reply-sockets.ts'
import { WaitingQueue } from './waiting-queue.ts'

/** Datagrams that wait for the caller; further ones wait in the kernel's buffer, and are lost when that is full. */
const QUEUE_LIMIT = 1_024
const READ_BATCH = 64
const REPLY_SOCKETS = 256
const LARGEST_PAYLOAD = 65_507 // 65,535 less the headers of IPv4 and UDP

export interface BindUdpOptions {
  /** IP literal; 0.0.0.0 when left out. Need not be ours when `transparent`. */
  address?: string
  /** 0 or left out: one that is free. */
  port?: number
  /** IP_TRANSPARENT: take what TPROXY or a mark brings, be bound to and send from addresses that are not ours. Needs CAP_NET_RAW. */
  transparent?: boolean
  /** fwmark (SO_MARK) of what it sends. Needs CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17. */
  mark?: number
  /** SO_REUSEADDR: others that say so too may have the same address and port. */
  reuseAddress?: boolean
  /** SO_REUSEPORT: several sockets share the datagrams. */
  reusePort?: boolean
  signal?: AbortSignal
}

/** One datagram that came in. */
export interface UdpDatagram {
  readonly bytes: Uint8Array
  /** Who sent it. */
  readonly clientAddr: Endpoint
  /** Where it was sent to: not the socket's own address when TPROXY or a mark brought it. */
  readonly originalDst: Endpoint
  /** TOS or traffic class: DSCP and ECN. */
  readonly tos: number
}

export interface SendOptions {
  /** The address that it comes from, instead of the socket's own; needs `transparent` when it is not ours. */
  from?: string
  tos?: number
}

/** A UDP socket, which may be bound to, and send from, addresses that are not ours. Iterate it to receive. */
export class UdpSocket implements AsyncIterable<UdpDatagram>, AsyncDisposable, EventTarget {
  readonly address: Endpoint
  readonly #family: Family
  readonly #outlet: SocketOutlet
  readonly #watch: Watch
  readonly #queue = new WaitingQueue<UdpDatagram>(QUEUE_LIMIT, 'UDP socket', () => this.#resume())
  readonly #signal: AbortSignal | undefined
  readonly #onAbort = (): void => this.close()
  readonly #mark: number
  #replies: ReplySockets | undefined
  #conntrack: Conntrack | undefined
  #lost = 0
  #isPaused = false
  #closed = false

  constructor(endpoint: Endpoint, options: BindUdpOptions) {
    const fd = openBound(endpoint, options)
    this.address = localEndpoint(fd)
    this.#family = familyOf(endpoint.address)
    this.#outlet = new SocketOutlet(fd, this.#family, (errno) => {
      this.#lost = errno
    })
    this.#mark = options.mark ?? 0
    this.#watch = eventLoop.take(fd, EPOLLIN, this)
    this.#signal = options.signal
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** @throws LimpidError LIMPID_USAGE while another iteration is under way: each datagram is given once. */
  [Symbol.asyncIterator](): AsyncGenerator<UdpDatagram, void, undefined> {
    return this.#queue.iterate()
  }

  /**
   * Sends one datagram. A text goes as UTF-8.
   * @returns false when the kernel's buffers are full: it is lost, as it might be on the way.
   * @throws LimpidError LIMPID_SEND when it cannot be sent (too large, no route, forbidden), LIMPID_USAGE.
   */
  send(content: Uint8Array | string, to: Endpoint, options: SendOptions = {}): boolean {
    const peer = expectEndpoint('UdpSocket.send', to, 1)
    const from =
      options.from === undefined ? undefined : expectEndpoint('UdpSocket.send, from', { address: options.from }, 0)
    return this.#send(this.#outlet, bytesOf(content), peer, from, options.tos ?? 0)
  }

  /**
   * Answers a datagram from where it was sent to, whatever socket took it: the client sees the address and port that it asked.
   * For datagrams that TPROXY or a mark brought, or that were sent to this socket. As send().
   */
  reply({ clientAddr, originalDst, tos }: UdpDatagram, content: Uint8Array | string): boolean {
    const bytes = bytesOf(content)
    if (originalDst.port === this.address.port) return this.#send(this.#outlet, bytes, clientAddr, originalDst, tos)
    this.#replies ??= this.#replySockets()
    const words = sockaddrWords(originalDst)
    const outlet = this.#replies.acquire({ words, at: 0 }, () => originalDst)
    if (outlet === undefined) {
      throw new LimpidError(
        'LIMPID_SEND',
        `cannot answer from ${formatEndpoint(originalDst)}: there is no socket for it`,
        {
          cure: 'run as root or with CAP_NET_RAW, and raise the limit of open files (ulimit -n)',
        },
      )
    }
    try {
      return this.#send(outlet, bytes, clientAddr, outlet.needsFrom ? originalDst : undefined, tos)
    } finally {
      this.#replies.release(outlet)
      this.#replies.sweep(performance.now())
    }
  }

  /**
   * Where the client sent a datagram that REDIRECT or DNAT brought here: conntrack's word. Undefined when it knows nothing of it.
   * @throws LimpidError LIMPID_CAPABILITY without CAP_NET_ADMIN.
   */
  natOriginalDst({ clientAddr, originalDst }: UdpDatagram): Endpoint | undefined {
    this.#conntrack ??= new Conntrack()
    return this.#conntrack.original(clientAddr, originalDst)?.originalDst
  }

  onEvents(): void {
    const { arena, outbox } = shared()
    const count = outbox.receive(this.#outlet, READ_BATCH)
    for (let slot = arena.used - Math.max(0, count); slot < arena.used; slot++) {
      this.#queue.push({
        bytes: arena.bytesOf(slot).slice(),
        clientAddr: decodeSockaddrWords(arena.senders, slot * SOCKADDR_WORDS),
        originalDst: decodeSockaddrWords(arena.destinations, slot * SOCKADDR_WORDS),
        tos: arena.tos[slot]!,
      })
    }
    outbox.flush()
    if (this.#queue.isFull) this.#pause()
  }

  /** Closes the socket and ends the iteration; datagrams that nobody took are lost. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#signal?.removeEventListener('abort', this.#onAbort)
    eventLoop.close(this.#watch)
    this.#outlet.fd = -1
    this.#replies?.close()
    this.#conntrack?.[Symbol.dispose]()
    this.#queue.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  #send(outlet: Outlet, bytes: Uint8Array, to: Endpoint, from: Endpoint | undefined, tos: number): boolean {
    if (this.#closed) throw new LimpidError('LIMPID_USAGE', 'this UDP socket is closed', { cure: 'bind a new one' })
    const what = `cannot send ${bytes.length} bytes to ${formatEndpoint(to)}`
    if (familyOf(to.address) !== this.#family || (from !== undefined && familyOf(from.address) !== this.#family)) {
      throw new LimpidError('LIMPID_USAGE', `${what}: this socket is IPv${this.#family}`, {
        cure: 'take addresses of the same IP version',
      })
    }
    if (bytes.length > LARGEST_PAYLOAD) throw sendError(what, EMSGSIZE)
    const { arena, outbox } = shared()
    this.#lost = 0
    const slot = arena.used++
    arena.replace(slot, bytes)
    arena.tos[slot] = tos
    outbox.put(outlet, slot, { words: sockaddrWords(to), at: 0 }, from && { words: sockaddrWords(from), at: 0 })
    outbox.flush()
    if (this.#lost === 0) return true
    if (this.#lost === EAGAIN || this.#lost === ENOBUFS) return false
    throw sendError(what, this.#lost)
  }

  #replySockets(): ReplySockets {
    const own = new OwnAddresses()
    return new ReplySockets({
      loop: eventLoop,
      arena: shared().arena,
      mark: this.#mark,
      most: REPLY_SOCKETS,
      isOwn: (address) => own.has(address, performance.now()),
      onError: () => {}, // nobody listens there any more: UDP does not promise it
      onLost: (errno) => {
        this.#lost = errno
      },
      note: () => {},
    })
  }

  #pause(): void {
    if (this.#isPaused || this.#closed) return
    this.#isPaused = true
    eventLoop.modify(this.#watch, 0)
  }

  #resume(): void {
    if (!this.#isPaused || this.#closed) return
    this.#isPaused = false
    eventLoop.modify(this.#watch, EPOLLIN)
  }
}

/** The socket as a way for datagrams. */
class SocketOutlet implements Outlet {
  fd: number
  readonly family: Family
  readonly #onError: (errno: number) => void
  segments: boolean
  head = -1
  tail = -1

  constructor(fd: number, family: Family, onError: (errno: number) => void) {
    this.fd = fd
    this.family = family
    this.segments = canSendSegments(fd)
    this.#onError = onError
  }

  onEarlierError(): void {}

  onLost(_slot: number, errno: number): void {
    this.#onError(errno)
  }
}

let memory: { readonly arena: DatagramArena; readonly outbox: Outbox } | undefined

/** Made with the first socket: 8 MiB of addresses, of which pages are used as datagrams come. */
function shared(): { readonly arena: DatagramArena; readonly outbox: Outbox } {
  if (memory === undefined) {
    const arena = new DatagramArena()
    memory = { arena, outbox: new Outbox(arena, eventLoop) }
  }
  return memory
}

function bytesOf(content: Uint8Array | string): Uint8Array {
  return typeof content === 'string' ? new TextEncoder().encode(content) : content
}

function sendError(what: string, errno: number): LimpidError {
  return new LimpidError('LIMPID_SEND', `${what}: ${errnoName(errno)}`, {
    cure:
      errno === EMSGSIZE
        ? `send at most ${LARGEST_PAYLOAD} bytes`
        : 'see the route (ip route get ADDRESS) and the rules of a firewall',
  })
}

/**
 * Binds a UDP socket, also to an address that is not ours (ip(7), IP_TRANSPARENT).
 * Like a dgram.Socket it keeps the process alive until close(); leaving the iteration does not close it, an abort does.
 * @throws LimpidError LIMPID_LISTEN when the address is taken or not ours, LIMPID_CAPABILITY when it may not be transparent,
 *   LIMPID_USAGE when it is no address; or the signal's reason.
 */
export async function bindUdp(options: BindUdpOptions = {}): Promise<UdpSocket> {
  options.signal?.throwIfAborted()
  const { address = '0.0.0.0', port } = options
  return new UdpSocket(expectEndpoint('bindUdp', { address, port }, 0), options)
}
