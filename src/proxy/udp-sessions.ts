import type { ListenerConfig, Timeouts } from '../config/types.ts'
import { Allowance } from '../relay/allowance.ts'
import { Outbox } from '../relay/outbox.ts'
import { IDLE_CLASSES, SessionTable } from '../relay/session-table.ts'
import { Conntrack } from '../sys/conntrack.ts'
import { DatagramArena } from '../sys/datagram-arena.ts'
import type { QueuedError } from '../sys/error-queue.ts'
import { closeFd } from '../sys/socket.ts'
import type { DatagramApp } from './app.ts'
import { arrivesRewritten } from './arrival.ts'
import { AskedSessions } from './asked-sessions.ts'
import type { ProxyContext } from './context.ts'
import { type DatagramCounters, type DropReason, dropReasonOf, newDatagramCounters } from './drops.ts'
import { HalfHellos } from './half-hellos.ts'
import { type ReplySocket, ReplySockets } from './reply-sockets.ts'
import type { Target } from './target.ts'
import { shortestOf } from './timeouts.ts'
import type { UdpContext } from './udp-context.ts'
import { UdpListener } from './udp-listener.ts'
import type { UdpSession } from './udp-session.ts'
import { UnfinishedHellos } from './unfinished-hellos.ts'

/** A session costs a dozen system calls: so many a second leave most of a core to the datagrams of those that there are. */
const SESSIONS_PER_SECOND = 20_000
const SESSIONS_AT_ONCE = 4_096
const SWEEP_MS = 250

/** How long all sessions must have been quiet when it stops: an answer that is under way still arrives. */
const QUIET_MS = 200
const LONGEST_QUIET_WAIT_MS = 2_000
const LOOK_EVERY_MS = 20

/** The shortest times that sessions may be idle: on ports with one answer to a question, and on others. Infinity: for ever. */
interface ShortestIdle {
  readonly query: number
  readonly stream: number
}

export interface UdpSessionsOptions {
  readonly listeners: readonly { readonly timeouts: Timeouts }[]
  /** fwmark of reply sockets; 0 for none. */
  readonly replyMark: number
  /** Ids are shared with TCP flows. */
  nextId(): number
  note(line: string): void
}

/** The UDP part of a proxy: its listeners, its sessions, and what they share. It costs nothing before the first listener. */
export class UdpSessions {
  readonly #context: UdpContext
  readonly #listeners: UdpListener[] = []
  #conntrack: Conntrack | undefined
  #sweep: NodeJS.Timeout | undefined
  #shortestIdleMs: ShortestIdle
  #stopping = false
  #wantsLinks = false

  constructor(proxy: ProxyContext, options: UdpSessionsOptions) {
    this.#shortestIdleMs = shortestIdle(options.listeners.map(({ timeouts }) => timeouts))
    const arena = new DatagramArena()
    const outbox = new Outbox(arena, proxy.resources.loop)
    const counters = newDatagramCounters()
    const countDrop = (reason: DropReason, datagrams: number): void => {
      counters.dropped[reason] += datagrams
    }
    const begins = new Allowance(SESSIONS_AT_ONCE, 1_000 / SESSIONS_PER_SECOND)
    const { loop } = proxy.resources
    const { sessions, sessionsPerClient, replySockets } = proxy.budget
    this.#context = {
      proxy,
      arena,
      outbox,
      table: new SessionTable<UdpSession>({ sessions, perClient: sessionsPerClient }),
      replies: new ReplySockets({
        loop,
        arena,
        mark: options.replyMark,
        most: replySockets,
        isOwn: (address) => proxy.own.has(address, loop.now),
        onError: (client, from, error) => this.#onClientError(client, from, error),
        onLost: (errno, datagrams) => this.#context.countLost(errno, datagrams),
        note: options.note,
      }),
      errors: proxy.clientErrors,
      counters,
      hellos: new UnfinishedHellos(countDrop),
      asked: new AskedSessions(countDrop),
      halves: new HalfHellos(countDrop),
      ends: new Set(),
      countDrop,
      countLost: (errno, datagrams) => countDrop(dropReasonOf(errno), datagrams),
      mayBegin: (now) => {
        if (this.#stopping) return 'stopping'
        if (begins.waitMs(now) > 0) return 'session-rate'
        begins.take(now)
        return undefined
      },
      nextId: options.nextId,
    }
  }

  /** Takes `fd`, which bindUdpListener() made. @throws LimpidError LIMPID_CAPABILITY where conntrack may not be asked. */
  listen(fd: number, listener: ListenerConfig, target: Target | undefined, app?: DatagramApp): void {
    const isRewritten = arrivesRewritten(listener.intercept)
    try {
      if (isRewritten) this.#conntrack ??= openConntrack()
    } catch (error) {
      closeFd(fd)
      throw error
    }
    const conntrack = isRewritten ? this.#conntrack : undefined
    const opened = new UdpListener(fd, listener, target, app, conntrack, this.#context)
    opened.wantLinks(this.#wantsLinks)
    this.#listeners.push(opened)
    this.#sweep ??= setInterval(() => this.#expire(), SWEEP_MS)
  }

  /** There are sessions with these from now on, too. */
  expect(timeouts: readonly Partial<Timeouts>[]): void {
    const { query, stream } = shortestIdle(timeouts)
    this.#shortestIdleMs = {
      query: Math.min(query, this.#shortestIdleMs.query),
      stream: Math.min(stream, this.#shortestIdleMs.stream),
    }
  }

  /** Whether rules ask by which interface datagrams come. */
  wantLinks(areWanted: boolean): void {
    this.#wantsLinks = areWanted
    for (const listener of this.#listeners) listener.wantLinks(areWanted)
  }

  /** As they are now: full buffers are asked what they have cost. */
  get counters(): DatagramCounters {
    for (const listener of this.#listeners) listener.countOverflow()
    for (const session of this.#context.table) session.countOverflow()
    return this.#context.counters
  }

  get open(): number {
    return this.#context.table.size
  }

  get replySockets(): number {
    return this.#context.replies.open
  }

  get rawDatagrams(): number {
    return this.#context.replies.rawDatagrams
  }

  /** Begins no more sessions; those that there are go on. */
  stopBeginning(): void {
    this.#stopping = true
  }

  /** Waits until no session has moved a datagram for a moment, but no longer than `mostMs`. */
  async quiet(mostMs: number): Promise<void> {
    const deadlineAt = performance.now() + Math.min(mostMs, LONGEST_QUIET_WAIT_MS)
    while (performance.now() < deadlineAt && this.#isBusy(performance.now() - QUIET_MS)) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
    }
  }

  #isBusy(since: number): boolean {
    for (const session of this.#context.table) if (session.activeAt > since) return true
    return false
  }

  /** Ends all sessions; when it returns each has had its record and no descriptor is left. */
  close(): void {
    clearInterval(this.#sweep)
    this.#context.outbox.flush()
    this.#context.asked.close()
    for (const session of this.#context.table) session.end('shutdown')
    for (const listener of this.#listeners) listener.close()
    this.#context.replies.close()
    this.#conntrack?.[Symbol.dispose]()
    this.#conntrack = undefined
  }

  /** Sessions of a class may belong to listeners with different patience: each is looked at until none of its class can be due. */
  #expire(): void {
    const now = performance.now()
    const { table, replies, hellos } = this.#context
    const { query, stream } = this.#shortestIdleMs
    for (const idleClass of IDLE_CLASSES) {
      const shortest = idleClass === 'stream' ? stream : Math.min(query, stream)
      table.oldestFirst(idleClass, (session) => {
        const idleMs = now - session.activeAt
        if (idleMs < shortest) return false
        if (session.idleMs > 0 && idleMs >= session.idleMs) session.end('session-idle')
        return true
      })
    }
    replies.sweep(now)
    hellos.expire(now)
  }

  /** A client's host has nobody who waits for the answers, or a router cannot bring them there, or not in this size. */
  #onClientError(client: Uint32Array, from: ReplySocket, error: QueuedError): void {
    for (const listener of this.#listeners) {
      const session = listener.sessionBetween(client, from.address)
      if (session === undefined) continue
      session.onClientError(error)
      return
    }
    this.#context.counters.errorsFromClient++
  }
}

function shortestIdle(timeouts: readonly Partial<Timeouts>[]): ShortestIdle {
  return { query: shortestOf(timeouts, 'queryIdleMs'), stream: shortestOf(timeouts, 'sessionIdleMs') }
}

/** Asks once, so that a missing capability is told at the start. @throws SyscallError LIMPID_CAPABILITY */
function openConntrack(): Conntrack {
  const conntrack = new Conntrack()
  try {
    conntrack.original({ address: '192.0.2.1', port: 1 }, { address: '192.0.2.2', port: 1 }) // nobody has these (RFC 5737)
    return conntrack
  } catch (error) {
    conntrack[Symbol.dispose]()
    throw error
  }
}
