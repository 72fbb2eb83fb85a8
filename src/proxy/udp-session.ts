import type { Decision } from '../config/policy-types.ts'
import type { Timeouts } from '../config/types.ts'
import type { QuicHello } from '../inspect/quic-initial.ts'
import { type Family, familyOf } from '../net/address.ts'
import type { ByteBucket } from '../relay/byte-bucket.ts'
import type { Outlet, Sockaddr } from '../relay/outbox.ts'
import { EAGAIN, ECONNREFUSED, EMSGSIZE } from '../sys/errno.ts'
import type { QueuedError } from '../sys/error-queue.ts'
import { EPOLLERR, EPOLLIN, type EventTarget, type Watch } from '../sys/loop.ts'
import { canSendSegments, pathMtu, setReceiveBuffer, takeSocketError } from '../sys/options.ts'
import { SOCKADDR_WORDS, sameSockaddr, sockaddrWords } from '../sys/sockaddr.ts'
import { localEndpoint, transmit } from '../sys/socket.ts'
import type { AppSession, DatagramApp } from './app.ts'
import type { ByteShare } from './byte-rates.ts'
import { tellClient } from './client-errors.ts'
import { type ClientSide, ClientSocket, STREAM_BUFFER_BYTES } from './client-socket.ts'
import { datagramsIn, trimToRate } from './datagram-rate.ts'
import type { SessionDecision } from './decide-session.ts'
import type { DropReason } from './drops.ts'
import { judgeConnection } from './judge-connection.ts'
import { OpenSessionRecord } from './open-session-record.ts'
import { Overflow } from './overflow.ts'
import type { PoolPlace } from './pool.ts'
import type { CloseReason, SourceUsed } from './record.ts'
import type { ReplyOutlet } from './reply-outlet.ts'
import { endsOf, QUERY_PORTS, type SessionStart } from './session-start.ts'
import type { UdpContext } from './udp-context.ts'

const READ_BATCH = 32
/** After so many datagrams it is a stream, whatever its port. */
const STREAM_AFTER = 16
/** After so many datagrams of its client a stream has a socket of its own for them: ten system calls that short ones save. */
const OWN_SOCKET_AFTER = 4
/** A datagram that came in one packet is no longer than this with its headers, whatever link it came by; a longer one may have been in fragments. */
const ONE_PACKET_BYTES = 1_500
const EVERY_PATH_BYTES = 1_200 // fits the smallest MTU of IPv6 (RFC 8200 §5)

/**
 * One UDP session: what a client sends to one original destination, and the answers. Its socket is connected to the upstream;
 * the client's datagrams come by the listener. Ends when it was idle for too long, or has to make room, with one reason.
 */
export class UdpSession extends OpenSessionRecord implements EventTarget, Outlet, AppSession, ClientSide {
  readonly #dscp: number | undefined
  readonly #place: PoolPlace | undefined
  readonly decision: Decision | undefined
  readonly #timeouts: Timeouts
  readonly #share: ByteShare | undefined
  fd: number
  readonly family: Family
  segments: boolean
  head = -1
  tail = -1
  state: unknown
  readonly #watch: Watch
  readonly #app: DatagramApp | undefined
  #replyBy: ReplyOutlet
  #to: Sockaddr | undefined
  #from: Sockaddr | undefined
  /** May it have a socket of its own towards the client? Asked once. */
  #mayOwn: boolean
  readonly #afterQueue: SessionStart['afterQueue']
  readonly #upstreamWords: Uint32Array
  #lastBytes = 0
  #lastBytesDown = 0
  #largest = EVERY_PATH_BYTES
  readonly #overflow = new Overflow()
  readonly #quic: QuicHello | undefined

  constructor(
    start: SessionStart,
    decided: SessionDecision,
    dialled: { readonly fd: number; readonly source: SourceUsed },
    replyBy: ReplyOutlet,
    context: UdpContext,
  ) {
    super(start, decided, dialled.source, context)
    this.decision = decided.decision
    this.#quic = decided.quic
    this.#dscp = decided.dscp
    this.#place = decided.place
    this.#timeouts = decided.timeouts
    this.#share = decided.share
    this.fd = dialled.fd
    this.family = familyOf(start.upstream.address)
    this.segments = canSendSegments(dialled.fd)
    this.#app = start.app
    this.#replyBy = replyBy
    this.#to = { words: start.key, at: 0 }
    this.#mayOwn = start.replyBy === undefined && start.app === undefined
    this.#afterQueue = start.afterQueue
    this.#from = replyBy.needsFrom ? { words: start.key, at: SOCKADDR_WORDS } : undefined
    this.#upstreamWords = sockaddrWords(start.upstream)
    this.#watch = context.proxy.resources.loop.take(dialled.fd, EPOLLIN, this)
  }

  /** A datagram of the client, or a train of them, is on its way to the upstream. */
  sendUp(slot: number): void {
    const { arena, outbox, counters, table, proxy } = this.context
    if (this.#share !== undefined && !this.#isWithin(this.#share.clientToUpstream, slot)) return
    const bytes = arena.length[slot]!
    if (this.#quic !== undefined && !this.#mayPass(this.#quic, arena.datagramsOf(slot))) return
    if (this.#app !== undefined && !this.#app.onSend(this, arena.bytesOf(slot))) {
      this.#drop('app', 1)
      return
    }
    const datagrams = datagramsIn(bytes, arena.segment[slot]!)
    this.datagramsUp += datagrams
    this.bytesUp += bytes
    this.#lastBytes = bytes
    const size = arena.segment[slot]! || bytes
    if (size > this.#largest) this.#onLargest(size)
    counters.datagramsClientToUpstream += datagrams
    if (this.#dscp !== undefined) arena.tos[slot] = (this.#dscp << 2) | (arena.tos[slot]! & ECN)
    table.touch(this, proxy.resources.loop.now)
    outbox.put(this, slot)
    if (this.#mayOwn && this.datagramsUp >= OWN_SOCKET_AFTER && this.idleClass === 'stream') this.#ownSocket()
  }

  /** A datagram that was held back until the session was decided. It came while another connection may have begun. */
  sendHeld(datagram: Uint8Array): void {
    if (this.fd < 0) return // one before it ended the session
    const bytes = datagram.length
    if (this.#share !== undefined && this.#share.clientToUpstream.takeWhole(bytes, bytes) < bytes) {
      this.#drop('policy-rate', 1)
      return
    }
    if (this.#quic === undefined || this.#mayPass(this.#quic, [datagram])) this.#sendAlone(datagram)
  }

  /** What may go on, beside the outbox. */
  #sendAlone(datagram: Uint8Array): void {
    this.context.table.touch(this, this.context.proxy.resources.loop.now)
    this.datagramsUp++
    this.bytesUp += datagram.length
    this.#lastBytes = datagram.length
    const sent = transmit(this.fd, datagram, datagram.length)
    if (sent >= 0) this.context.counters.datagramsClientToUpstream++
    else this.onLost(-1, -sent, 1)
  }

  /** Drops what of a slot is beyond the rate; false when nothing is left. */
  #isWithin(bucket: ByteBucket, slot: number): boolean {
    const dropped = trimToRate(bucket, this.context.arena, slot)
    if (dropped.datagrams > 0) this.#drop('policy-rate', dropped.datagrams)
    return !dropped.all
  }

  /**
   * Within a session a client may begin another connection. False: these datagrams do not go on as they are; those that may were sent each by
   * itself.
   */
  #mayPass(quic: QuicHello, datagrams: readonly Uint8Array[]): boolean {
    let isSplit = false
    for (const [at, datagram] of datagrams.entries()) {
      const why = judgeConnection(this, quic, datagram, this.context)
      if (why === undefined || why === 'whole') {
        if (why === 'whole') for (const one of this.context.halves.take(this, quic.connection)) this.#sendAlone(one)
        if (isSplit) this.#sendAlone(datagram)
      } else if (why !== 'held') {
        this.#drop(why === 'unknown' ? 'host-mismatch' : why, datagrams.length - (isSplit ? at : 0))
        if (why !== 'unknown') this.end(why)
        return false
      } else if (!isSplit) {
        isSplit = true
        for (const one of datagrams.slice(0, at)) this.#sendAlone(one)
      }
    }
    return !isSplit
  }

  /** From the next one on the client's datagrams come to a socket of its own, read when those before it have been. */
  #ownSocket(): void {
    this.#mayOwn = false
    const { replies, outbox } = this.context
    const own = replies.own(this.reached, this.client, this, outbox)
    if (own === undefined) return
    replies.release(this.#replyBy)
    this.#replyBy = own
    this.#to = undefined
    this.#from = undefined
    this.#afterQueue(() => {
      if (!own.startReading()) this.end('dial-failed')
    })
  }

  /** A router, or the client's host, about an answer. */
  onClientError({ errno, mtu }: QueuedError): void {
    this.context.counters.errorsFromClient++
    if (errno === EMSGSIZE) this.tellUpstream(mtu)
    else if (errno === ECONNREFUSED) this.end('client-gone')
  }

  onEvents(events: number): void {
    if ((events & EPOLLERR) !== 0) this.#onError(takeSocketError(this.fd))
    if ((events & EPOLLIN) === 0 || this.fd < 0) return
    const { arena, outbox } = this.context
    const count = outbox.receive(this, READ_BATCH)
    if (count < 0) this.#onError(-count)
    for (let slot = arena.used - Math.max(0, count); slot < arena.used; slot++) this.#sendDown(slot)
    outbox.flushSoon()
  }

  #sendDown(slot: number): void {
    const { arena, outbox, counters, table, proxy } = this.context
    // between bind() and connect() a socket takes datagrams from anybody
    if (!sameSockaddr(arena.senders, slot * SOCKADDR_WORDS, this.#upstreamWords)) {
      this.#drop('stranger', datagramsIn(arena.length[slot]!, arena.segment[slot]!))
      return
    }
    if (this.#share !== undefined && !this.#isWithin(this.#share.upstreamToClient, slot)) return
    const datagrams = datagramsIn(arena.length[slot]!, arena.segment[slot]!)
    if (this.#app !== undefined) {
      const kept = this.#app.onReceive(this, arena.bytesOf(slot))
      if (kept < 0) {
        this.#drop('app', 1)
        return
      }
      arena.length[slot] = kept
    }
    const bytes = arena.length[slot]!
    this.datagramsDown += datagrams
    this.bytesDown += bytes
    this.#lastBytesDown = bytes
    counters.datagramsUpstreamToClient += datagrams
    if (this.idleClass !== 'stream') this.#reclass()
    table.touch(this, proxy.resources.loop.now)
    outbox.put(this.#replyBy, slot, this.#to, this.#from)
  }

  #reclass(): void {
    const isQuery = QUERY_PORTS.has(this.originalDst.port) && this.datagramsUp + this.datagramsDown < STREAM_AFTER
    const wanted = isQuery ? 'query' : 'stream'
    if (this.idleClass === wanted) return
    this.context.table.reclass(this, wanted)
    if (wanted === 'stream') setReceiveBuffer(this.fd, STREAM_BUFFER_BYTES)
  }

  /** How long it may be idle, in milliseconds; 0: for ever. */
  get idleMs(): number {
    const { sessionIdleMs, queryIdleMs } = this.#timeouts
    return this.idleClass !== 'stream' && QUERY_PORTS.has(this.originalDst.port) ? queryIdleMs : sessionIdleMs
  }

  onEarlierError(errno: number): void {
    this.#onError(errno)
  }

  onLost(slot: number, errno: number, datagrams: number): void {
    this.dropped += datagrams
    this.context.countLost(errno, datagrams)
    // it does not fit the path, and was not to be fragmented
    if (errno === EMSGSIZE) this.#tellClient(errno, this.context.arena.length[slot]!)
  }

  /** What ICMP says of a datagram that went to the upstream, or of what was sent there before. */
  #onError(errno: number): void {
    if (errno === 0 || errno === EAGAIN) return
    this.errno = errno
    this.context.counters.errorsFromUpstream++
    if (errno !== EMSGSIZE) this.#app?.onUnreachable(this.upstream)
    this.#tellClient(errno, this.#lastBytes)
  }

  /**
   * Once routers have told what the path carries, the kernel fragments what is larger, and they say it no more: to other clients we do.
   * The datagram itself goes on.
   */
  #onLargest(size: number): void {
    this.#largest = size
    const whole = size + (this.family === 4 ? 28 : 48)
    if (whole <= ONE_PACKET_BYTES && whole > pathMtu(this.fd, this.family)) this.#tellClient(EMSGSIZE, size)
  }

  /** The way to the client carries `mtu` bytes: the upstream is told, as without a proxy a router would have done. */
  tellUpstream(mtu: number): void {
    const { errors, counters } = this.context
    if (mtu <= 0 || this.fd < 0) return
    const own = sockaddrWords(localEndpoint(this.fd))
    const quoted = { datagram: this.#lastBytesDown }
    if (errors.tell(this.family, { kind: 'too-big', mtu }, this.#upstreamWords, own, quoted)) {
      counters.errorsToUpstream++
    }
  }

  /** Counts what full buffers of its own have cost since they were last asked. */
  countOverflow(): void {
    const down = this.#overflow.since(this.fd, this.datagramsDown, this.bytesDown)
    if (down > 0) this.#drop('upstream-buffer', down)
    if (!(this.#replyBy instanceof ClientSocket)) return
    const up = this.#replyBy.overflow.since(this.#replyBy.fd, this.datagramsUp, this.bytesUp)
    if (up > 0) this.#drop('client-buffer', up)
  }

  #tellClient(errno: number, bytes: number): void {
    const mtu = errno === EMSGSIZE ? pathMtu(this.fd, this.family) : 0
    tellClient(this, errno, this.context, { mtu, bytes })
  }

  #drop(reason: DropReason, datagrams: number): void {
    this.dropped += datagrams
    this.context.countDrop(reason, datagrams)
  }

  /** Ends it: its socket is closed, and its record is told. */
  end(reason: CloseReason): void {
    if (this.fd < 0) return
    const { table, replies, proxy, ends, halves } = this.context
    halves.forget(this)
    this.countOverflow()
    if (this.source === 'client-port') ends.delete(endsOf(this))
    const sourceAddr = localEndpoint(this.fd)
    table.remove(this)
    proxy.resources.loop.close(this.#watch)
    this.fd = -1
    replies.release(this.#replyBy)
    this.#app?.onSessionEnd(this)
    this.#place?.leave()
    this.#share?.leave()
    const moved = { bytesClientToUpstream: this.bytesUp, bytesUpstreamToClient: this.bytesDown }
    proxy.onFlowEnd(reason, moved, () => this.toRecord(reason, sourceAddr))
  }
}

const ECN = 0x3 // RFC 3168 §5
