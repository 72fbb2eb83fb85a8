import { DEFAULT_TIMEOUTS } from '../config/defaults.ts'
import type { Onward, Via } from '../config/policy-types.ts'
import type { Timeouts } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { viaText } from '../policy/decision-text.ts'
import type { Finding } from '../policy/facts.ts'
import { RELAY_EVENTS } from '../relay/tcp.ts'
import { errnoName } from '../sys/errno.ts'
import type { Watch } from '../sys/loop.ts'
import { type FirstBytes, localEndpoint, receive } from '../sys/socket.ts'
import { type Parties, refusalOf } from './admission.ts'
import type { ProxyContext } from './context.ts'
import { destinationOf, withPort } from './destination.ts'
import { Dial, type DialOwner } from './dial.ts'
import type { PoolPlace } from './pool.ts'
import type { DialReason, RefusalReason, SourceUsed, ViaReason } from './record.ts'
import { ViaHandshake, type ViaOwner } from './via-handshake.ts'
import { conversationFor } from './via-protocols.ts'

/** What a policy says of an upstream. */
export type Way = Onward & { readonly via?: Via; readonly app?: string }

/** Where there is no policy, or it says nothing else. */
export const AS_LISTENER: Way = { to: undefined, source: undefined }

/** A flow whose upstream is opened. Told once, within begin() or later. */
export interface Opened extends Parties {
  /** The client's socket. */
  readonly watch: Watch
  readonly isStopping: boolean
  readonly timeouts: Timeouts
  /** What the client says first must stay in its socket. */
  readonly isHeld: boolean
  /** What the client says first has been looked at. */
  readonly finding: Finding | undefined
  /** The name for which the client dials, where one is known. */
  readonly host: string | undefined
  /** What is dialled. */
  upstream: Endpoint
  /** A place in a pool is the flow's: it leaves it at its end. */
  place: PoolPlace | undefined
  sourceUsed: SourceUsed | undefined
  sourceAddr: Endpoint | undefined
  /** Takes the watch. `events`: what epoll has reported. `first`: bytes of the client that were read before. */
  onOpened(upstream: Watch, events: number, first: FirstBytes | undefined): void
  /** `error`: an errno's name, or what a proxy said. */
  onNotOpened(reason: RefusalReason | DialReason | ViaReason, error: string | undefined): void
}

/**
 * Opens the upstream of one flow: dials the destination, another server when one of a pool does not answer, or a proxy; says what is to
 * be said there first.
 */
export class Opening implements DialOwner, ViaOwner {
  readonly #flow: Opened
  readonly #way: Way
  readonly #context: ProxyContext
  #destination: Endpoint
  #first: FirstBytes | undefined
  #underWay: Dial | ViaHandshake | undefined

  constructor(flow: Opened, way: Way, context: ProxyContext) {
    this.#flow = flow
    this.#way = way
    this.#context = context
    this.#destination = flow.upstream
  }

  begin(): void {
    const destination = destinationOf(this.#way, this.#flow, this.#context.pools)
    if (destination.kind === 'none') {
      this.#flow.onNotOpened('dial-failed', destination.why)
      return
    }
    this.#flow.place = destination.place
    const { isHeld, listener, watch } = this.#flow
    const { via, limit } = this.#way
    // no byte passes by the relay, where it would have to wait for its turn
    if (listener.fastOpen && !isHeld && via === undefined && limit?.bytes === undefined)
      this.#first = readFirstBytes(watch.fd)
    this.#goTo(destination.endpoint)
  }

  /** Nobody waits for it any more. */
  abandon(): void {
    this.#underWay?.abandon()
  }

  #goTo(destination: Endpoint): void {
    const { via } = this.#way
    this.#destination = destination
    this.#flow.upstream = via === undefined || via.kind === 'proxy-protocol' ? destination : via.proxy
    // where the listener alone decides it was asked before
    const refusal = this.#way === AS_LISTENER ? undefined : refusalOf(this.#flow, this.#context)
    if (refusal === undefined) this.#dial()
    else this.#flow.onNotOpened(refusal, undefined)
  }

  #dial(): void {
    const { source, timeouts, upstream, finding, isHeld } = this.#flow
    const { mark, ports, counters, resources, dials } = this.#context
    const options = {
      source,
      mark: mark | (this.#way.mark ?? 0),
      dscp: this.#way.dscp,
      connectMs: timeouts.connectMs,
      deadPeerMs: 0, // most flows end before a peer could be missed: Flow.sweep() sets it on those that do not
      first: this.#first,
      clientSpoke: finding !== undefined && !isHeld,
      ports,
      events: RELAY_EVENTS,
    }
    const dial = new Dial(upstream, options, resources.loop, counters, this)
    this.#underWay = dial
    dials.add(dial)
  }

  onDialFailed(reason: DialReason, errno: number): void {
    const { isStopping, originalDst, place, source } = this.#flow
    if (place === undefined || isStopping || !place.move(reason, source.kind)) {
      this.#flow.onNotOpened(reason, errno === 0 ? undefined : errnoName(errno))
      return
    }
    if (this.#first !== undefined) this.#first.sent = 0
    this.#goTo(withPort(place.endpoint, originalDst))
  }

  onDialled(upstream: Watch, events: number, source: SourceUsed): void {
    this.#flow.sourceUsed = source
    if (this.#context.tellsFlows()) this.#flow.sourceAddr = localEndpoint(upstream.fd)
    if (this.#way.via === undefined) this.onViaOpen(upstream, events)
    else this.#speak(upstream, events, this.#way.via)
  }

  /** What is said before the client's bytes. */
  #speak(upstream: Watch, events: number, via: Via): void {
    const { client, originalDst, host, timeouts } = this.#flow
    const conversation = conversationFor(via, { client, originalDst, destination: this.#destination, host })
    const timeoutMs = timeouts.connectMs || DEFAULT_TIMEOUTS.connectMs
    const { loop } = this.#context.resources
    const handshake = new ViaHandshake(upstream, events, conversation, timeoutMs, loop, this)
    this.#underWay = handshake
    handshake.begin()
  }

  onViaOpen(upstream: Watch, events: number): void {
    this.#flow.onOpened(upstream, events, this.#first)
  }

  onViaFailed(reason: ViaReason | 'client-gone', why: string | undefined): void {
    this.#flow.onNotOpened(reason, why === undefined ? undefined : `${viaText(this.#way.via!)}: ${why}`)
  }
}

const FIRST_BYTES = 1_220 // what fits into a SYN at the smallest IPv6 MTU (RFC 8200 §5), less 60 bytes of headers

/** What the client has sent already, if anything, for the SYN to the upstream. A FIN or an error is left to the relay. */
function readFirstBytes(fd: number): FirstBytes | undefined {
  const buffer = new Uint8Array(FIRST_BYTES)
  const count = receive(fd, buffer, FIRST_BYTES)
  return count > 0 ? { bytes: buffer.subarray(0, count), sent: 0 } : undefined
}
