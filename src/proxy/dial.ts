import { type Endpoint, type Family, familyOf } from '../net/address.ts'
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
  BIND_ADDRESS_NO_PORT,
  differentiated,
  marked,
  NO_DELAY,
  REUSE_ADDRESS,
  type SocketOption,
  setKeepalive,
  setResetOnClose,
  takeSocketError,
  transparent,
  URGENT_INLINE,
} from '../sys/options.ts'
import { prepareSocket } from '../sys/prepare-socket.ts'
import type { Ring } from '../sys/ring.ts'
import { closeFd, type FirstBytes, localEndpoint, openTcp, startConnect, startFastOpen } from '../sys/socket.ts'
import type { DialReason, SourceUsed } from './record.ts'
import type { DialSource } from './source.ts'
import type { SourcePorts } from './source-ports.ts'

export interface DialOptions {
  readonly source: DialSource
  /** fwmark of our packets, so that the rules leave them alone; 0 for none. */
  readonly mark: number
  /** Of our packets; undefined: the kernel's. */
  readonly dscp?: number | undefined
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

/** Who wants an upstream. Told once, within the call that dials or later. */
export interface DialOwner {
  /** Takes the watch and its descriptor. `events`: what epoll has reported; edge-triggered, it does not come again. */
  onDialled(watch: Watch, events: number, source: SourceUsed): void
  onDialFailed(reason: DialReason, errno: number): void
}

export interface Dialled {
  readonly kind: 'connected'
  /** The caller takes it. It is not watched. */
  readonly fd: number
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
 * Opens the upstream: one socket, bound to its source before connect(). Returns the dial that is under way; undefined when its owner
 * knows already that it failed. Never throws for what a network or the kernel says: that is the outcome.
 */
export function startDial(
  to: Endpoint,
  options: DialOptions,
  loop: EventLoop,
  counters: DialCounters,
  owner: DialOwner,
): Dial | undefined {
  const started = connectFromSource(to, options, counters, loop.ring)
  if ('errno' in started) {
    owner.onDialFailed(reasonOf(started.errno), started.errno)
    return undefined
  }
  return new Dial(started.fd, started.source, options, loop, owner)
}

/** The same as a promise, for who is in no hurry. `onAbandon` gets what ends the dial early. */
export function dial(
  to: Endpoint,
  options: DialOptions,
  loop: EventLoop,
  counters: DialCounters,
  onAbandon?: (abandon: () => void) => void,
): Promise<Dialled | DialFailure> {
  return new Promise((resolve) => {
    const owner: DialOwner = {
      onDialled: (watch, _events, source) => {
        loop.remove(watch)
        resolve({ kind: 'connected', fd: watch.fd, sourceAddr: localEndpoint(watch.fd), source })
      },
      onDialFailed: (reason, errno) => resolve({ kind: 'failed', reason, errno }),
    }
    const started = startDial(to, options, loop, counters, owner)
    if (started !== undefined) onAbandon?.(() => started.abandon())
  })
}

/** A connect under way. */
export class Dial implements EventTarget {
  readonly #source: SourceUsed
  readonly #loop: EventLoop
  readonly #owner: DialOwner
  readonly #watch: Watch
  readonly #timer: NodeJS.Timeout | undefined
  #settled = false

  /** Takes `fd`. @throws SyscallError when it cannot be watched. */
  constructor(fd: number, source: SourceUsed, options: DialOptions, loop: EventLoop, owner: DialOwner) {
    this.#source = source
    this.#loop = loop
    this.#owner = owner
    this.#watch = loop.take(fd, options.events, this)
    if (options.connectMs > 0) this.#timer = setTimeout(() => this.#fail('dial-timeout', ETIMEDOUT), options.connectMs)
  }

  onEvents(events: number): void {
    if ((events & (EPOLLERR | EPOLLHUP)) !== 0) {
      const errno = takeSocketError(this.#watch.fd) || ECONNRESET
      this.#fail(reasonOf(errno), errno)
    } else if ((events & EPOLLOUT) !== 0) {
      this.#settle()
      this.#owner.onDialled(this.#watch, events, this.#source)
    }
  }

  /** Nobody waits for the answer any more. */
  abandon(): void {
    this.#fail('client-gone', 0)
  }

  #fail(reason: DialReason, errno: number): void {
    if (this.#settled) return
    this.#settle()
    setResetOnClose(this.#watch.fd)
    this.#loop.close(this.#watch)
    this.#owner.onDialFailed(reason, errno)
  }

  #settle(): void {
    this.#settled = true
    clearTimeout(this.#timer)
  }
}

type Started = { readonly fd: number; readonly source: SourceUsed } | { readonly errno: number }

/** Tries the wanted source, then what it may fall back to. */
function connectFromSource(to: Endpoint, options: DialOptions, counters: DialCounters, ring?: Ring): Started {
  const { kind, bind } = options.source
  let result =
    bind?.port === 0
      ? connectFromAny(to, bind, options, counters, ring)
      : attemptConnect(to, options, bind, counters, ring)
  let source = kind
  if (kind === 'client-port' && isPortTaken(result)) {
    counters.sourcePortFallbacks++
    source = 'client'
    result = connectFromAny(to, { address: bind!.address, port: 0 }, options, counters, ring)
  }
  return result < 0 ? { errno: -result } : { fd: result, source }
}

/** From any port of an address: one that the kernel finds, or one outside of its range when that is crowded. */
function connectFromAny(
  to: Endpoint,
  bind: Endpoint,
  options: DialOptions,
  counters: DialCounters,
  ring?: Ring,
): number {
  const { ports } = options
  const startedAt = performance.now()
  if (!ports.isCrowded(bind.address, to, startedAt)) {
    const result = attemptConnect(to, options, bind, counters, ring)
    const now = performance.now()
    const isFound = result !== -EADDRNOTAVAIL
    ports.noteConnect(bind.address, to, isFound ? now - startedAt : Number.POSITIVE_INFINITY, now)
    if (isFound) return result
  }
  counters.sourcePortSearches++
  let result = -EADDRNOTAVAIL
  for (let tries = 0; tries < PORT_SEARCHES && isPortTaken(result); tries++) {
    result = attemptConnect(to, options, { address: bind.address, port: ports.next() }, counters, ring)
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
  ring?: Ring,
): number {
  let fd = -1
  try {
    const family = familyOf(to.address)
    fd = openTcp(family)
    if (options.deadPeerMs > 0) setKeepalive(fd, options.deadPeerMs)
    prepareSocket(fd, socketOptions(family, options, bind), bind, ring)
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

/** Of a socket to dial with: those of its source come last, and before bind(). */
function socketOptions(family: Family, { mark, dscp }: DialOptions, bind: Endpoint | undefined): SocketOption[] {
  const all = [NO_DELAY, URGENT_INLINE]
  if (mark !== 0) all.push(marked(mark)) // before connect(): the SYN is already routed by it
  if (dscp !== undefined) all.push(differentiated(family, dscp))
  if (bind === undefined) return all
  all.push(transparent(family), REUSE_ADDRESS) // also when the port does not matter: another socket may want that port towards another server
  if (bind.port === 0) all.push(BIND_ADDRESS_NO_PORT)
  return all
}

function reasonOf(errno: number): DialReason {
  return REASONS.get(errno) ?? 'dial-failed'
}

const REASONS: ReadonlyMap<number, DialReason> = new Map([
  [ECONNREFUSED, 'dial-refused'],
  [ECONNRESET, 'upstream-reset'], // it had answered already
  [ETIMEDOUT, 'dial-timeout'],
  [ENETUNREACH, 'dial-unreachable'],
  [EHOSTUNREACH, 'dial-unreachable'],
  [ENETDOWN, 'dial-unreachable'],
])
