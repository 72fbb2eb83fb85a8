import { type Endpoint, familyOf } from '../net/address.ts'
import {
  EADDRINUSE,
  EADDRNOTAVAIL,
  ECONNREFUSED,
  ECONNRESET,
  EHOSTUNREACH,
  ENETDOWN,
  ENETUNREACH,
  ETIMEDOUT,
  SyscallError,
} from '../sys/errno.ts'
import { EPOLLERR, EPOLLHUP, EPOLLOUT, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import {
  setBindAddressNoPort,
  setKeepalive,
  setMark,
  setNoDelay,
  setResetOnClose,
  setReuseAddress,
  setTransparent,
  setUrgentInline,
  takeSocketError,
} from '../sys/options.ts'
import {
  bindSocket,
  closeFd,
  type FirstBytes,
  localEndpoint,
  openTcp,
  startConnect,
  startFastOpen,
} from '../sys/socket.ts'
import type { DialReason, SourceUsed } from './record.ts'
import type { DialSource } from './source.ts'
import type { SourcePorts } from './source-ports.ts'

export interface DialOptions {
  readonly source: DialSource
  /** fwmark of our packets, so that the rules leave them alone; 0 for none. */
  readonly mark: number
  /** 0: as long as the kernel tries (net.ipv4.tcp_syn_retries). */
  readonly connectMs: number
  /** 0: not watched from the start. */
  readonly deadPeerMs: number
  /** Sent with the SYN where Fast Open allows it (RFC 7413); `sent` is set. */
  readonly first: FirstBytes | undefined
  readonly ports: SourcePorts
  /** epoll events that the connected socket is to be watched for; must include EPOLLOUT. */
  readonly events: number
}

export interface Dialled {
  readonly kind: 'connected'
  /** The caller takes the watch and its descriptor. */
  readonly watch: Watch
  /** What epoll reported so far; edge-triggered, it does not come again. */
  readonly events: () => number
  readonly sourceAddr: Endpoint
  readonly source: SourceUsed
}

export interface DialFailure {
  readonly kind: 'failed'
  readonly reason: DialReason
  readonly errno: number
}

/** Counts what happened on the way to a connection. */
export interface DialCounters {
  /** Sockets with which a connect was started: one a flow, unless the port had to be chosen again. */
  dials: number
  /** `client-port` gave way to `client`, because the port was taken. */
  sourcePortFallbacks: number
  /** The source port was chosen outside the kernel's range, because that was crowded towards this server. */
  sourcePortSearches: number
}

/** Ports to try one after the other when the kernel finds none free for a source towards a server. */
const PORT_SEARCHES = 64

/**
 * Opens the upstream: one socket, bound to its source before connect(). `onAbandon` gets a
 * function that ends the dial early (reason `client-gone`). Never throws for what a network or the kernel says: that is the outcome.
 */
export function dial(
  to: Endpoint,
  options: DialOptions,
  loop: EventLoop,
  counters: DialCounters,
  onAbandon?: (abandon: () => void) => void,
): Promise<Dialled | DialFailure> {
  const started = startDial(to, options, counters)
  if ('errno' in started) return Promise.resolve(failure(started.errno))
  const { fd, source } = started
  return new Promise((resolve) => {
    const attempt = new Attempt(fd, loop, options, (errno, watch) => {
      if (errno !== 0)
        resolve(errno === ABANDONED ? { kind: 'failed', reason: 'client-gone', errno: 0 } : failure(errno))
      else resolve({ kind: 'connected', watch, events: () => attempt.events, sourceAddr: localEndpoint(fd), source })
    })
    onAbandon?.(() => attempt.abandon())
  })
}

const ABANDONED = -1

/** A connect under way. Afterwards it goes on collecting events until the relay takes the watch over. */
class Attempt implements EventTarget {
  readonly #loop: EventLoop
  readonly #watch: Watch
  readonly #done: (errno: number, watch: Watch) => void
  readonly #timer: NodeJS.Timeout | undefined
  #settled = false
  events = 0

  constructor(fd: number, loop: EventLoop, options: DialOptions, done: (errno: number, watch: Watch) => void) {
    this.#loop = loop
    this.#done = done
    this.#watch = loop.take(fd, options.events, this)
    if (options.connectMs > 0) this.#timer = setTimeout(() => this.#fail(ETIMEDOUT), options.connectMs)
  }

  onEvents(events: number): void {
    this.events |= events
    if (this.#settled) return
    if ((events & (EPOLLERR | EPOLLHUP)) !== 0) {
      this.#fail(takeSocketError(this.#watch.fd) || ECONNRESET)
    } else if ((events & EPOLLOUT) !== 0) {
      this.#settled = true
      clearTimeout(this.#timer)
      this.#done(0, this.#watch)
    }
  }

  abandon(): void {
    this.#fail(ABANDONED)
  }

  #fail(errno: number): void {
    if (this.#settled) return
    this.#settled = true
    clearTimeout(this.#timer)
    setResetOnClose(this.#watch.fd)
    this.#loop.close(this.#watch)
    this.#done(errno, this.#watch)
  }
}

type Started = { readonly fd: number; readonly source: SourceUsed } | { readonly errno: number }

/** Tries the wanted source, then what it may fall back to. */
function startDial(to: Endpoint, options: DialOptions, counters: DialCounters): Started {
  const { kind, bind } = options.source
  let result =
    bind?.port === 0 ? connectFromAny(to, bind, options, counters) : attemptConnect(to, options, bind, counters)
  let source = kind
  if (kind === 'client-port' && isPortTaken(result)) {
    counters.sourcePortFallbacks++
    source = 'client'
    result = connectFromAny(to, { address: bind!.address, port: 0 }, options, counters)
  }
  return result < 0 ? { errno: -result } : { fd: result, source }
}

/** From any port of an address: one that the kernel finds, or one outside of its range when that is crowded. */
function connectFromAny(to: Endpoint, bind: Endpoint, options: DialOptions, counters: DialCounters): number {
  const { ports } = options
  const startedAt = performance.now()
  if (!ports.isCrowded(bind.address, to, startedAt)) {
    const result = attemptConnect(to, options, bind, counters)
    const now = performance.now()
    const isFound = result !== -EADDRNOTAVAIL
    ports.noteConnect(bind.address, to, isFound ? now - startedAt : Number.POSITIVE_INFINITY, now)
    if (isFound) return result
  }
  counters.sourcePortSearches++
  let result = -EADDRNOTAVAIL
  for (let tries = 0; tries < PORT_SEARCHES && isPortTaken(result); tries++) {
    result = attemptConnect(to, options, { address: bind.address, port: ports.next() }, counters)
  }
  return isPortTaken(result) ? attemptConnect(to, options, bind, counters) : result
}

function isPortTaken(result: number): boolean {
  return result === -EADDRINUSE || result === -EADDRNOTAVAIL
}

/** A socket whose connect is under way, or the negative errno. */
function attemptConnect(
  to: Endpoint,
  options: DialOptions,
  bind: Endpoint | undefined,
  counters: DialCounters,
): number {
  let fd = -1
  try {
    const family = familyOf(to.address)
    fd = openTcp(family)
    setNoDelay(fd)
    setUrgentInline(fd)
    if (options.deadPeerMs > 0) setKeepalive(fd, options.deadPeerMs)
    if (options.mark !== 0) setMark(fd, options.mark) // before connect(): the SYN is already routed by it
    if (bind !== undefined) {
      setTransparent(fd, family)
      setReuseAddress(fd) // also when the port does not matter: another socket may want that port towards another server
      if (bind.port === 0) setBindAddressNoPort(fd)
      bindSocket(fd, bind)
    }
  } catch (error) {
    if (fd >= 0) closeFd(fd)
    if (error instanceof SyscallError) return -error.errno
    throw error
  }
  counters.dials++
  const errno = options.first === undefined ? startConnect(fd, to) : startFastOpen(fd, to, options.first)
  if (errno === 0) return fd
  closeFd(fd)
  return -errno
}

function failure(errno: number): DialFailure {
  const reason = REASONS.get(errno) ?? 'dial-failed'
  return { kind: 'failed', reason, errno }
}

const REASONS: ReadonlyMap<number, DialReason> = new Map([
  [ECONNREFUSED, 'dial-refused'],
  [ECONNRESET, 'upstream-reset'], // it had answered already
  [ETIMEDOUT, 'dial-timeout'],
  [ENETUNREACH, 'dial-unreachable'],
  [EHOSTUNREACH, 'dial-unreachable'],
  [ENETDOWN, 'dial-unreachable'],
])
