import type { ListenerConfig, Protocol } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, familyOf, formatEndpoint } from '../net/address.ts'
import { acceptConnections } from '../sys/accept.ts'
import { EADDRINUSE, EMFILE, ENFILE, ENOBUFS, ENOMEM, SyscallError } from '../sys/errno.ts'
import { EPOLLIN, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import {
  setDeferAccept,
  setFastOpen,
  setIpv6Only,
  setKeepalive,
  setMark,
  setNoDelay,
  setReuseAddress,
  setReusePort,
  setTransparent,
  setUrgentInline,
} from '../sys/options.ts'
import { type Accepted, bindSocket, closeFd, listenSocket, localEndpoint, openTcp } from '../sys/socket.ts'
import { arrivesUntouched } from './arrival.ts'

/** Then the flows that there are have their turn. Those of a batch are dialled together: of more, the first wait for the last (docs/performance.md). */
const ACCEPT_BATCH = 8
/** After EMFILE and its like: long enough to cost nothing, short enough to be back at once. */
const ACCEPT_BACKOFF_MS = 50

export interface BindTcpOptions {
  /** Of connections whose handshake is not finished, with Fast Open. */
  readonly backlog: number
  /** fwmark of the accepted sockets' packets; 0 for none. */
  readonly mark: number
  /** SO_REUSEPORT: others of this user may bind the same, and share what comes. */
  readonly reusePort?: boolean | undefined
  /** TCP_DEFER_ACCEPT. */
  readonly deferSeconds?: number | undefined
}

/** A listening socket in the event loop. */
export class TcpListener implements EventTarget {
  readonly #loop: EventLoop
  readonly #watch: Watch
  readonly #room: () => number
  readonly #onAccept: (accepted: readonly Accepted[]) => void
  #backoff: NodeJS.Timeout | undefined
  readonly #backlog: number
  /** How many connections waited lately. */
  #usual = 1
  #paused = false
  #closed = false
  readonly address: Endpoint
  /** Times that accepting stopped because descriptors or memory were used up (EMFILE, ENFILE, ENOBUFS, ENOMEM). */
  backoffs = 0

  /**
   * Takes `fd`, which bindTcp() made, and listens at once; closes it also when it throws. `onAccept` owns what it gets,
   * of which there is no more than `room` said: while that is 0, connections wait in the backlog until `resume()`.
   * @throws LimpidError LIMPID_LISTEN when somebody else listens there.
   */
  constructor(
    fd: number,
    backlog: number,
    loop: EventLoop,
    room: () => number,
    onAccept: (accepted: readonly Accepted[]) => void,
  ) {
    this.#loop = loop
    this.#backlog = backlog
    this.#room = room
    this.#onAccept = onAccept
    this.address = localEndpoint(fd)
    try {
      listenSocket(fd, backlog)
    } catch (error) {
      closeFd(fd)
      throw listenError(error, this.address, 'tcp')
    }
    this.#watch = loop.add(fd, EPOLLIN, this)
  }

  onEvents(): void {
    this.#accept(ACCEPT_BATCH)
  }

  /** Takes every connection that waits in the backlog, as far as the limits allow. */
  takeBacklog(): void {
    this.#accept(this.#backlog)
  }

  #accept(most: number): void {
    let count = 0
    for (let wanted = this.#usual + 1; count < most && !this.#closed; wanted *= 2) {
      const room = this.#room()
      if (room <= 0) {
        this.#pause()
        return
      }
      const asked = Math.min(wanted, ACCEPT_BATCH, room, most - count)
      const { accepted, errno } = acceptConnections(this.#watch.fd, asked, this.#loop.ring)
      count += Math.max(1, accepted.length)
      if (accepted.length > 0) this.#onAccept(accepted)
      if (errno === 0) continue
      this.#usual = Math.min(count, ACCEPT_BATCH)
      this.#onAcceptError(errno)
      return
    }
  }

  /** Accepts again after there was no room. */
  resume(): void {
    if (!this.#paused || this.#closed || this.#backoff !== undefined) return
    this.#paused = false
    this.#loop.modify(this.#watch, EPOLLIN)
  }

  /** Stops listening at once: what waits in the backlog is reset by the kernel. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#backoff)
    this.#loop.close(this.#watch)
  }

  #pause(): void {
    if (this.#paused || this.#closed) return
    this.#paused = true
    this.#loop.modify(this.#watch, 0)
  }

  #onAcceptError(errno: number): void {
    if (!EXHAUSTED.has(errno)) return // EAGAIN: drained; or an error of that one connection (accept(2)), which is gone
    this.backoffs++
    this.#pause()
    clearTimeout(this.#backoff)
    this.#backoff = setTimeout(() => {
      this.#backoff = undefined
      this.resume()
    }, ACCEPT_BACKOFF_MS)
  }
}

/** EMFILE, ENFILE, ENOBUFS, ENOMEM: trying again at once would only spin. */
const EXHAUSTED: ReadonlySet<number> = new Set([EMFILE, ENFILE, ENOBUFS, ENOMEM])

/**
 * A bound socket for a TcpListener. Options set here hold for every socket that it accepts.
 * @throws LimpidError LIMPID_LISTEN when the address is taken or not ours, LIMPID_CAPABILITY when it is denied.
 */
export function bindTcp(
  endpoint: Endpoint,
  listener: Pick<ListenerConfig, 'intercept' | 'fastOpen' | 'timeouts'>,
  { backlog, mark, reusePort, deferSeconds }: BindTcpOptions,
): number {
  const family = familyOf(endpoint.address)
  const fd = openTcp(family)
  try {
    if (family === 6) setIpv6Only(fd)
    if (reusePort === true) setReusePort(fd)
    setReuseAddress(fd) // a restart does not wait for TIME_WAIT
    // tproxy needs it even on 127.0.0.1; without it the SYN-ACK of an IPv4 listener on all addresses, which is to come
    // from somebody else's, has no route (ip_route_output_key, net/ipv4/route.c)
    if (arrivesUntouched(listener.intercept)) setTransparent(fd, family)
    if (mark !== 0) setMark(fd, mark)
    setNoDelay(fd)
    setUrgentInline(fd)
    if (listener.timeouts.deadPeerMs > 0) setKeepalive(fd, listener.timeouts.deadPeerMs)
    bindSocket(fd, endpoint)
    if (deferSeconds !== undefined) setDeferAccept(fd, deferSeconds)
    if (listener.fastOpen) setFastOpen(fd, backlog)
    return fd
  } catch (error) {
    closeFd(fd)
    throw listenError(error, endpoint, 'tcp')
  }
}

/** What went wrong when a listener was opened, as LIMPID_LISTEN with the way to find out more. */
export function listenError(error: unknown, endpoint: Endpoint, protocol: Protocol): unknown {
  if (!(error instanceof SyscallError) || error.code === 'LIMPID_CAPABILITY') return error
  if (error.call !== 'bind' && error.call !== 'listen') return error
  const taken = error.errno === EADDRINUSE
  return new LimpidError('LIMPID_LISTEN', `cannot listen on ${formatEndpoint(endpoint)}: ${error.message}`, {
    cure: taken
      ? `choose another port, or see who has it: ss -H${protocol === 'tcp' ? 't' : 'u'}anp 'sport = :${endpoint.port}'`
      : 'choose an address of this host (ip address)',
    cause: error,
  })
}
