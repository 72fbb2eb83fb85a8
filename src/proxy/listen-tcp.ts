import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS } from '../config/defaults.ts'
import type { Endpoint } from '../net/address.ts'
import { eventLoop } from '../sys/loop.ts'
import { localEndpoint } from '../sys/socket.ts'
import { expectEndpoint } from './expect-endpoint.ts'
import { bindTcp, TcpListener } from './listener.ts'
import { TcpSocket } from './tcp-socket.ts'
import { WaitingQueue } from './waiting-queue.ts'

/** Accepted connections that wait for the caller; further ones wait in the kernel's backlog. */
const QUEUE_LIMIT = 64

export interface ListenTcpOptions {
  /** IP literal; 0.0.0.0 when left out. Need not be ours when `transparent`. */
  address?: string
  /** 0 or left out: one that is free. */
  port?: number
  /** IP_TRANSPARENT: accept what TPROXY rules bring, listen on addresses that are not ours. Needs CAP_NET_RAW. */
  transparent?: boolean
  backlog?: number
  /** fwmark (SO_MARK) of the accepted sockets' packets. Needs CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17. */
  mark?: number
  fastOpen?: boolean
  /** SO_REUSEPORT: several listeners, of this program or others, share the connections. */
  reusePort?: boolean
  /** Accept only once the client has sent bytes, or after this many seconds (TCP_DEFER_ACCEPT). */
  deferSeconds?: number
  signal?: AbortSignal
}

/** A listening TCP socket; iterate it to accept: `for await (const socket of listener)`. */
export class TcpAcceptor implements AsyncIterable<TcpSocket>, AsyncDisposable {
  readonly #queue = new WaitingQueue<TcpSocket>(QUEUE_LIMIT, 'listener', () => this.#listener.resume())
  readonly #listener: TcpListener
  readonly #signal: AbortSignal | undefined
  readonly #onAbort = (): void => this.close()
  #closed = false

  constructor(endpoint: Endpoint, options: ListenTcpOptions) {
    const listener = {
      intercept: options.transparent === true ? ('tproxy' as const) : ('none' as const),
      fastOpen: options.fastOpen ?? false,
      timeouts: DEFAULT_TIMEOUTS,
    }
    const { backlog = DEFAULT_LIMITS.backlog, mark = 0, reusePort, deferSeconds } = options
    this.#listener = new TcpListener(
      bindTcp(endpoint, listener, { backlog, mark, reusePort, deferSeconds }),
      backlog,
      eventLoop,
      () => this.#queue.room,
      (all) => {
        for (const { fd, clientAddr } of all) this.#queue.push(new TcpSocket(fd, localEndpoint(fd), clientAddr))
      },
    )
    this.#signal = options.signal
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** What it listens on. */
  get address(): Endpoint {
    return this.#listener.address
  }

  /** @throws LimpidError LIMPID_USAGE while another iteration is under way: each connection is given once. */
  [Symbol.asyncIterator](): AsyncGenerator<TcpSocket, void, undefined> {
    return this.#queue.iterate()
  }

  /** Stops listening and ends the iteration; connections that nobody took are reset. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#signal?.removeEventListener('abort', this.#onAbort)
    this.#listener.close()
    for (const socket of this.#queue.close()) socket.reset()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }
}

/**
 * Listens for TCP connections, also for such as were dialled to somebody else (ip(7), IP_TRANSPARENT).
 * Like net.Server it keeps the process alive until close(); leaving the iteration does not close it, an abort does.
 * @throws LimpidError LIMPID_LISTEN when the address is taken, LIMPID_CAPABILITY when it may not be transparent,
 *   LIMPID_USAGE when it is no address; or the signal's reason.
 */
export async function listenTcp(options: ListenTcpOptions = {}): Promise<TcpAcceptor> {
  options.signal?.throwIfAborted()
  const { address = '0.0.0.0', port } = options
  return new TcpAcceptor(expectEndpoint('listenTcp', { address, port }, 0), options)
}
