import type { Watch } from '../sys/loop.ts'
import { EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP } from '../sys/loop.ts'
import { peerSilenceMs, setResetOnClose, unacknowledgedBytes } from '../sys/options.ts'
import type { FirstBytes } from '../sys/socket.ts'
import type { ByteBucket } from './byte-bucket.ts'
import { Direction } from './direction.ts'
import type { DirectionOwner } from './direction-owner.ts'
import type { RelayReason } from './reasons.ts'
import type { RelayResources } from './resources.ts'

/** What a socket must be watched for before it is handed to a relay. */
export const RELAY_EVENTS = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET

export interface RelayTimeouts {
  readonly idleMs: number
  readonly halfCloseMs: number
  readonly deadPeerMs: number
}

export interface RelayBuckets {
  readonly clientToUpstream: ByteBucket
  readonly upstreamToClient: ByteBucket
}

/** How often within `deadPeerMs` the peers are looked at: two system calls each time. */
const PEER_CHECKS = 4

/** Who is told, once, that a relay has ended and its sockets are closed. */
export interface RelayOwner {
  onRelayEnd(reason: RelayReason): void
}

/**
 * Moves bytes both ways between two connected sockets until both have closed, one resets, or a timeout passes.
 * Takes both sockets: their watches are removed and their descriptors closed on every path.
 */
export class TcpRelay implements DirectionOwner {
  readonly resources: RelayResources
  readonly #client: Watch
  readonly #upstream: Watch
  readonly #clientToUpstream: Direction
  readonly #upstreamToClient: Direction
  readonly #owner: RelayOwner
  #halfClosedAt = 0
  ended = false
  /** At the last look, see #isDraining. */
  #unacknowledged = Number.POSITIVE_INFINITY
  #peersCheckedAt: number
  lastActiveAt: number

  /** `first`: bytes of the client that were read before. */
  constructor(client: Watch, upstream: Watch, resources: RelayResources, owner: RelayOwner, first?: FirstBytes) {
    this.resources = resources
    this.#client = client
    this.#upstream = upstream
    this.#owner = owner
    this.lastActiveAt = resources.loop.now
    this.#peersCheckedAt = resources.loop.now
    this.#clientToUpstream = new Direction(this, client.fd, upstream.fd, 'client')
    this.#upstreamToClient = new Direction(this, upstream.fd, client.fd, 'upstream')
    this.#clientToUpstream.opposite = this.#upstreamToClient
    this.#upstreamToClient.opposite = this.#clientToUpstream
    if (first !== undefined) this.#clientToUpstream.begin(first)
  }

  /** The sockets' events go to the relay from now on; those that were reported before (edge-triggered) do not come again. */
  begin(clientEvents: number, upstreamEvents: number): void {
    this.#client.target = this.#clientToUpstream
    this.#upstream.target = this.#upstreamToClient
    this.#clientToUpstream.onEvents(clientEvents)
    if (!this.ended) this.#upstreamToClient.onEvents(upstreamEvents)
  }

  /** Reads nothing of the client until passClient(); what its socket reports goes to `guard`, too. Before begin(). */
  holdClient(guard: (events: number) => void): void {
    this.#clientToUpstream.holdFor(guard)
  }

  passClient(): void {
    this.#clientToUpstream.passOn()
  }

  /** From now on each direction reads no more than its bucket has; undefined: what there is. */
  slowTo(buckets: RelayBuckets | undefined): void {
    this.#clientToUpstream.slowTo(buckets?.clientToUpstream)
    if (!this.ended) this.#upstreamToClient.slowTo(buckets?.upstreamToClient)
  }

  get upstreamFd(): number {
    return this.#upstream.fd
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
    this.#halfClosedAt = this.resources.loop.now
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

  /**
   * A slow receiver still takes what lies in our socket's buffer: nothing is read or written meanwhile. Nor is it while a direction
   * waits for its turn.
   */
  #isDraining(now: number): boolean {
    if (this.#clientToUpstream.isPaced || this.#upstreamToClient.isPaced) return true
    const unacknowledged = unacknowledgedBytes(this.#client.fd) + unacknowledgedBytes(this.#upstream.fd)
    const isDraining = unacknowledged > 0 && unacknowledged !== this.#unacknowledged
    this.#unacknowledged = unacknowledged
    if (isDraining) this.lastActiveAt = now
    return isDraining
  }

  /** Ends the relay now. Only `closed` ends the connections with FIN, which both have had; otherwise both see a reset. */
  end(reason: RelayReason): void {
    if (this.ended) return
    this.ended = true
    // a write can tell of a peer's death before that peer's last bytes were read: an answer given before the reset
    if (reason === 'upstream-reset' || reason === 'upstream-lost') this.#upstreamToClient.passRest()
    if (reason === 'client-reset' || reason === 'client-lost') this.#clientToUpstream.passRest()
    this.#clientToUpstream.release()
    this.#upstreamToClient.release()
    if (reason !== 'closed') {
      setResetOnClose(this.#client.fd)
      setResetOnClose(this.#upstream.fd)
    }
    this.resources.loop.closeLater(this.#client)
    this.resources.loop.closeLater(this.#upstream)
    this.#owner.onRelayEnd(reason)
  }
}
