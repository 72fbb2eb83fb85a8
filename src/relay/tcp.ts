import type { Watch } from '../sys/loop.ts'
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP } from '../sys/loop.ts'
import { peerSilenceMs, setResetOnClose, unacknowledgedBytes } from '../sys/options.ts'
import type { FirstBytes } from '../sys/socket.ts'
import { Direction, type DirectionOwner } from './direction.ts'
import type { RelayReason } from './reasons.ts'
import type { RelayResources } from './resources.ts'

/** What a socket must be watched for before it is handed to a relay. */
export const RELAY_EVENTS = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET

export interface RelayTimeouts {
  readonly idleMs: number
  readonly halfCloseMs: number
  readonly deadPeerMs: number
}

/** How often within `deadPeerMs` the peers are looked at: two system calls each time. */
const PEER_CHECKS = 4

/** A connected socket in the epoll set, with the events it has had so far (edge-triggered: they do not come again). */
export interface RelayedSocket {
  readonly watch: Watch
  readonly events: number
}

/**
 * Moves bytes both ways between two connected sockets until both have closed, one resets, or a timeout passes.
 * Takes both sockets: their watches are removed and their descriptors closed on every path.
 */
export class TcpRelay implements DirectionOwner {
  readonly #resources: RelayResources
  readonly #client: Watch
  readonly #upstream: Watch
  readonly #clientToUpstream: Direction
  readonly #upstreamToClient: Direction
  readonly #onEnd: (reason: RelayReason) => void
  #halfClosedAt = 0
  #ended = false
  /** At the last look, see #isDraining. */
  #unacknowledged = Number.POSITIVE_INFINITY
  #peersCheckedAt: number
  lastActiveAt: number

  constructor(
    client: RelayedSocket,
    upstream: RelayedSocket,
    resources: RelayResources,
    onEnd: (reason: RelayReason) => void,
    first?: FirstBytes,
  ) {
    this.#resources = resources
    this.#client = client.watch
    this.#upstream = upstream.watch
    this.#onEnd = onEnd
    this.lastActiveAt = resources.loop.now
    this.#peersCheckedAt = resources.loop.now
    this.#clientToUpstream = new Direction(this, client.watch.fd, upstream.watch.fd, 'client', 'upstream', resources)
    this.#upstreamToClient = new Direction(this, upstream.watch.fd, client.watch.fd, 'upstream', 'client', resources)
    if (first !== undefined) this.#clientToUpstream.begin(first)
    client.watch.target = new Side(this, this.#clientToUpstream, this.#upstreamToClient)
    upstream.watch.target = new Side(this, this.#upstreamToClient, this.#clientToUpstream)
    this.#client.target.onEvents(client.events)
    if (!this.#ended) this.#upstream.target.onEvents(upstream.events)
  }

  get ended(): boolean {
    return this.#ended
  }

  get bytesClientToUpstream(): number {
    return this.#clientToUpstream.bytes
  }

  get bytesUpstreamToClient(): number {
    return this.#upstreamToClient.bytes
  }

  isLastDirection(): boolean {
    return this.#clientToUpstream.finished && this.#upstreamToClient.finished
  }

  onDirectionFinished(): void {
    this.#halfClosedAt = this.#resources.loop.now
    if (this.isLastDirection()) this.end('closed')
  }

  /** Ends the relay if a timeout has passed at `now` (the loop's milliseconds). To be called every second or so. */
  expire(now: number, timeouts: RelayTimeouts): void {
    const isHalfClosed = this.#halfClosedAt !== 0 && timeouts.halfCloseMs > 0
    const limit = isHalfClosed ? timeouts.halfCloseMs : timeouts.idleMs
    const since = isHalfClosed ? Math.max(this.#halfClosedAt, this.lastActiveAt) : this.lastActiveAt
    if (limit > 0 && now - since >= limit && !this.#isDraining(now)) {
      this.end(isHalfClosed ? 'half-close-timeout' : 'idle-timeout')
    } else if (timeouts.deadPeerMs > 0 && now - this.#peersCheckedAt >= timeouts.deadPeerMs / PEER_CHECKS) {
      this.#peersCheckedAt = now
      if (peerSilenceMs(this.#client.fd) >= timeouts.deadPeerMs) this.end('client-lost')
      else if (peerSilenceMs(this.#upstream.fd) >= timeouts.deadPeerMs) this.end('upstream-lost')
    }
  }

  /** A slow receiver still takes what lies in our socket's buffer: nothing is read or written meanwhile. */
  #isDraining(now: number): boolean {
    const unacknowledged = unacknowledgedBytes(this.#client.fd) + unacknowledgedBytes(this.#upstream.fd)
    const isDraining = unacknowledged > 0 && unacknowledged !== this.#unacknowledged
    this.#unacknowledged = unacknowledged
    if (isDraining) this.lastActiveAt = now
    return isDraining
  }

  /** Ends the relay now. Only `closed` ends the connections with FIN, which both have had; otherwise both see a reset. */
  end(reason: RelayReason): void {
    if (this.#ended) return
    this.#ended = true
    // a write can tell of a peer's death before that peer's last bytes were read: an answer given before the reset
    if (reason === 'upstream-reset' || reason === 'upstream-lost') this.#upstreamToClient.passRest()
    if (reason === 'client-reset' || reason === 'client-lost') this.#clientToUpstream.passRest()
    this.#clientToUpstream.release()
    this.#upstreamToClient.release()
    for (const watch of [this.#client, this.#upstream]) {
      if (reason !== 'closed') setResetOnClose(watch.fd)
      this.#resources.loop.close(watch)
    }
    this.#onEnd(reason)
  }
}

/** One socket of a relay: what it can read goes out by `outgoing`, what it can write comes from `incoming`. */
class Side {
  readonly #relay: TcpRelay
  readonly #outgoing: Direction
  readonly #incoming: Direction

  constructor(relay: TcpRelay, outgoing: Direction, incoming: Direction) {
    this.#relay = relay
    this.#outgoing = outgoing
    this.#incoming = incoming
  }

  onEvents(events: number): void {
    if ((events & EPOLLOUT) !== 0) this.#incoming.onWritable()
    if (this.#relay.ended) return
    if ((events & EPOLLPRI) !== 0) this.#outgoing.onUrgent()
    const failed = (events & EPOLLERR) !== 0
    // on a reset, what came before it is read first, and then the error: it must never be taken for a FIN
    if (failed || (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) !== 0) {
      this.#outgoing.onReadable(!failed && (events & EPOLLRDHUP) !== 0)
    }
    if (failed && !this.#relay.ended) this.#outgoing.onError()
  }
}
