import type { ListenerConfig } from '../config/types.ts'
import { type Endpoint, type Family, familyOf, sameEndpoint } from '../net/address.ts'
import type { Sockaddr } from '../relay/outbox.ts'
import { keyOf } from '../relay/session-table.ts'
import type { Conntrack } from '../sys/conntrack.ts'
import { receivePacketInfo } from '../sys/inbound-interface.ts'
import { EPOLLERR, EPOLLIN, type EventTarget, type Watch } from '../sys/loop.ts'
import { canSendSegments, socketDrops, tryReceiveOffload } from '../sys/options.ts'
import { decodeSockaddrWords, SOCKADDR_WORDS } from '../sys/sockaddr.ts'
import { localEndpoint } from '../sys/socket.ts'
import type { ClientDatagram, DatagramApp, DatagramDecision, HeldDatagram } from './app.ts'
import { datagramsIn } from './datagram-rate.ts'
import type { DropReason } from './drops.ts'
import { HeldDatagrams, type HeldSlot } from './held-datagrams.ts'
import { makeRoom, openSession } from './open-session.ts'
import { LISTENER_BUFFER_BYTES } from './open-udp.ts'
import { ReceivedDatagram } from './received-datagram.ts'
import { type ReplyOutlet, takeErrors } from './reply-outlet.ts'
import { type Target, upstreamOf } from './target.ts'
import type { UdpContext } from './udp-context.ts'
import type { UdpSession } from './udp-session.ts'

const READ_BATCH = 64
const BATCHES_PER_EVENT = 4 // then the sessions have their turn
/** More datagrams than its buffer holds, of which the kernel doubles the size. */
const MOST_QUEUED = (2 * LISTENER_BUFFER_BYTES) / 512
/**
 * A listener that has not been empty for so long is flooded: 10,000 clients at once are served by then. Until it is empty again few
 * sessions begin, so that the datagrams of those that there are do not wait, and are not lost behind the others.
 */
const FLOODED_AFTER_MS = 1_000
const BEGINNINGS_WHEN_FLOODED = 2 // of each batch
/** conntrack forgets a UDP flow after 30 s at the earliest (nf_conntrack_udp_timeout): long before, it is asked again where a flow goes. */
const ASK_AGAIN_MS = 5_000

/** A socket that takes the datagrams of intercepted clients, of all sessions. Where their answers may leave by it, they do. */
export class UdpListener implements EventTarget, ReplyOutlet {
  readonly address: Endpoint
  readonly family: Family
  readonly needsFrom = true
  fd: number
  segments: boolean
  head = -1
  tail = -1
  readonly #watch: Watch
  readonly #listener: ListenerConfig
  readonly #target: Target | undefined
  readonly #context: UdpContext
  readonly #app: DatagramApp | undefined
  readonly #conntrack: Conntrack | undefined
  /** Keeps apart sessions of listeners that have the same ends. */
  readonly #salt: number
  readonly #datagram: ReceivedDatagram
  readonly #held = new HeldDatagrams()
  /** Datagrams lost by its full buffer that were counted. */
  #overflow = 0
  /** When nothing waited any more, in monotonic milliseconds. */
  #emptyAt = 0
  #wasFull = false
  #received = 0
  #waiting: { readonly work: () => void; readonly at: number }[] = []
  #beginningsLeft = 0
  /** Where an app wants the datagram at hand to go. */
  #to: Endpoint | undefined

  /** Takes `fd`, which bindUdpListener() made. */
  constructor(
    fd: number,
    listener: ListenerConfig,
    target: Target | undefined,
    app: DatagramApp | undefined,
    conntrack: Conntrack | undefined,
    context: UdpContext,
  ) {
    this.fd = fd
    this.address = localEndpoint(fd)
    this.family = familyOf(this.address.address)
    if (app === undefined) tryReceiveOffload(fd) // an app looks at datagrams one by one
    this.#overflow = socketDrops(fd) // of one that another process of ours had before, those are counted
    this.segments = canSendSegments(this.fd)
    this.#listener = listener
    this.#target = target
    this.#app = app
    this.#conntrack = conntrack
    this.#context = context
    this.#salt = this.fd
    this.#datagram = new ReceivedDatagram(context, conntrack, (slot, onForgotten) => this.#hold(slot, onForgotten))
    this.#watch = context.proxy.resources.loop.take(this.fd, EPOLLIN, this)
  }

  onEvents(events: number): void {
    if ((events & EPOLLERR) !== 0) this.#takeErrors()
    if ((events & EPOLLIN) === 0 || this.fd < 0) return
    const { arena, outbox } = this.#context
    for (let batch = 0; batch < BATCHES_PER_EVENT && this.fd >= 0; batch++) {
      const now = performance.now()
      if (batch === 0 && !this.#wasFull) this.#emptyAt = now
      this.#beginningsLeft = now - this.#emptyAt > FLOODED_AFTER_MS ? BEGINNINGS_WHEN_FLOODED : READ_BATCH
      const count = outbox.receive(this, READ_BATCH)
      this.#wasFull = count === READ_BATCH
      this.#tellAfterQueue(Math.max(0, count), !this.#wasFull)
      if (count <= 0) break
      for (let slot = arena.used - count; slot < arena.used; slot++) this.#take(slot)
      if (!this.#wasFull && this.#waiting.length === 0) break
    }
    outbox.flushSoon()
    // it may be empty by now, and then nothing would be told any more
    if (this.#waiting.length > 0) this.#context.proxy.resources.loop.later(() => this.onEvents(EPOLLIN))
  }

  /** Datagrams come with the interface that they came by, or not any more. */
  wantLinks(areWanted: boolean): void {
    receivePacketInfo(this.fd, this.family, areWanted)
  }

  /** Calls back when all that waited at this moment has been taken. */
  readonly #afterQueue = (work: () => void): void => {
    this.#waiting.push({ work, at: this.#received + MOST_QUEUED })
  }

  #tellAfterQueue(received: number, isEmpty: boolean): void {
    this.#received += received
    if (this.#waiting.length === 0) return
    const due = this.#waiting.filter(({ at }) => isEmpty || at <= this.#received)
    if (due.length === 0) return
    this.#waiting = this.#waiting.filter((one) => !due.includes(one))
    // what was received last is still to be looked at
    for (const { work } of due) this.#context.proxy.resources.loop.afterEvents(work)
  }

  /** Where the datagram goes: an app's answer, the session that there is, or a new one. */
  #take(slot: number): void {
    this.#to = undefined
    if (this.#app === undefined) {
      this.#send(slot)
      return
    }
    this.#datagram.slot = slot
    this.#follow(slot, this.#app.decide(this.#datagram))
  }

  #follow(slot: number, decision: DatagramDecision): void {
    if (decision.kind === 'drop') this.#drop('app', slot)
    else if (decision.kind === 'reply') this.#reply(slot, decision.bytes)
    else if (decision.kind === 'forward') {
      this.#to = decision.to
      this.#send(slot)
    }
  }

  #hold(slot: number, onForgotten: () => void): HeldDatagram | undefined {
    const held = this.#held.hold(this.#context.arena, slot, onForgotten)
    return held && { settle: (decide) => this.#settle(held, decide) }
  }

  #settle(held: HeldSlot, decide: (datagram: ClientDatagram) => DatagramDecision): void {
    if (!this.#held.release(held)) return
    const { outbox } = this.#context
    const slot = outbox.add(held.bytes, held.sender, held.destination, held.tos)
    this.#datagram.slot = slot
    this.#beginningsLeft = 1
    this.#follow(slot, decide(this.#datagram))
    outbox.flushSoon()
  }

  /** By the session that there is, or a new one. */
  #send(slot: number): void {
    const { arena, table } = this.#context
    const at = slot * SOCKADDR_WORDS
    const hash = table.hashOf(arena.senders, at, arena.destinations, at, this.#salt)
    const session = this.#find(hash, at) ?? this.#open(hash, at, slot)
    session?.sendUp(slot)
  }

  #find(hash: number, at: number): UdpSession | undefined {
    const { arena, table, proxy } = this.#context
    const session = table.find(hash, arena.senders, at, arena.destinations, at, this.#isWanted)
    if (session === undefined || this.#conntrack === undefined) return session
    if (proxy.resources.loop.now - session.activeAt < ASK_AGAIN_MS) return session
    const known = this.#conntrack.original(session.client, session.reached)
    if (known === undefined || sameEndpoint(known.originalDst, session.originalDst)) return session
    session.end('session-idle') // the client's next flow looks the same from here
    return undefined
  }

  /** Of the sessions with the same ends: this listener's, and towards the upstream that an app wants. */
  readonly #isWanted = (session: UdpSession): boolean => {
    if (session.listener !== this.#listener) return false
    if (this.#app === undefined) return true
    return sameEndpoint(session.upstream, this.#to ?? upstreamOf(session.originalDst, this.#target))
  }

  #open(hash: number, at: number, slot: number): UdpSession | undefined {
    const context = this.#context
    const { arena } = context
    const { now } = context.proxy.resources.loop
    const refused = this.#beginningsLeft-- > 0 ? context.mayBegin(now) : 'session-rate'
    if (refused !== undefined) return this.#drop(refused, slot)
    const client = decodeSockaddrWords(arena.senders, at)
    const full = makeRoom(client, context)
    if (full !== undefined) return this.#drop(full, slot)
    const reached = decodeSockaddrWords(arena.destinations, at)
    const originalDst = this.#conntrack?.original(client, reached)?.originalDst ?? reached
    const session = openSession(
      {
        key: keyOf(arena.senders, at, arena.destinations, at),
        hash,
        client,
        reached,
        originalDst,
        upstream: this.#to ?? upstreamOf(originalDst, this.#target),
        interfaceIndex: arena.interfaces[slot]!,
        listener: this.#listener,
        replyBy: this.#answers ? this : undefined,
        app: this.#app,
        datagrams: () => arena.datagramsOf(slot),
        afterQueue: this.#afterQueue,
      },
      context,
    )
    if (session === 'held') return undefined
    if (typeof session === 'string') return this.#drop(session, slot)
    return session.fd < 0 ? undefined : session // what had been held back has ended it
  }

  /** May answers leave by this socket? Its port is the one that the client asked, or conntrack makes it so. */
  get #answers(): boolean {
    return this.#listener.intercept !== 'tproxy'
  }

  #reply(slot: number, bytes: Uint8Array): void {
    const { arena, outbox, replies } = this.#context
    const at = slot * SOCKADDR_WORDS
    const dst: Sockaddr = { words: arena.destinations, at }
    const endpoint = (): Endpoint => decodeSockaddrWords(arena.destinations, at)
    const outlet = this.#answers ? this : replies.acquire(dst, endpoint)
    if (outlet === undefined) {
      this.#drop('reply-address', slot)
      return
    }
    arena.replace(slot, bytes)
    arena.tos[slot] = 0
    outbox.put(outlet, slot, { words: arena.senders, at }, outlet.needsFrom ? dst : undefined)
    if (outlet !== this) replies.release(outlet) // it stays for a while: the outbox is flushed long before
  }

  onEarlierError(): void {
    this.#takeErrors()
  }

  onLost(_slot: number, errno: number, datagrams: number): void {
    this.#context.countLost(errno, datagrams)
  }

  /** The session of a client with what it sent to: the words of sockaddrs. */
  sessionBetween(client: Uint32Array, dst: Uint32Array): UdpSession | undefined {
    const { table } = this.#context
    const hash = table.hashOf(client, 0, dst, 0, this.#salt)
    return table.find(hash, client, 0, dst, 0, (session) => session.listener === this.#listener)
  }

  close(): void {
    if (this.fd < 0) return
    this.countOverflow()
    this.#held.forget()
    this.#context.proxy.resources.loop.close(this.#watch)
    this.fd = -1
  }

  #takeErrors(): void {
    takeErrors(this, () => {
      this.#context.counters.errorsFromClient++
    })
  }

  /** Counts what its full buffer has cost since it was last asked. */
  countOverflow(): void {
    if (this.fd < 0) return
    const lost = socketDrops(this.fd)
    this.#context.counters.dropped['listener-buffer'] += (lost - this.#overflow) >>> 0
    this.#overflow = lost
  }

  #drop(reason: DropReason, slot: number): undefined {
    const { arena, countDrop } = this.#context
    countDrop(reason, datagramsIn(arena.length[slot]!, arena.segment[slot]!))
  }
}
