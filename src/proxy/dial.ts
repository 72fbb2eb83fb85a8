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
import { openSocket, openSockets, type SocketPlan } from '../sys/open-sockets.ts'
import {
  BIND_ADDRESS_NO_PORT,
  differentiated,
  keepalive,
  marked,
  NO_DELAY,
  NO_QUICK_ACK,
  REUSE_ADDRESS,
  type SocketOption,
  setResetOnClose,
  takeSocketError,
  transparent,
  URGENT_INLINE,
} from '../sys/options.ts'
import { type FirstBytes, localEndpoint, startConnect, startFastOpen } from '../sys/socket.ts'
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
  /** The client's first bytes are there, and follow at once: the last packet of the handshake waits for them, and goes with them. */
  readonly clientSpoke?: boolean
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

/** Opens an upstream, for who is in no hurry: resolves with the outcome. `onAbandon` gets what ends the dial early. */
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
    const dial = new Dial(to, options, loop, counters, owner)
    onAbandon?.(() => dial.abandon())
    dial.start(openSockets([dial.plan], loop)[0])
  })
}

/**
 * The way to one upstream: one socket, bound to its source before connect(). Never throws for what a network or the kernel says: that is the
 * outcome.
 */
export class Dial implements EventTarget {
  readonly #to: Endpoint
  readonly #options: DialOptions
  readonly #loop: EventLoop
  readonly #counters: DialCounters
  readonly #owner: DialOwner
  #source: SourceUsed
  /** Once its connect is under way. */
  #watch: Watch | undefined
  #timer: NodeJS.Timeout | undefined
  #settled = false

  constructor(to: Endpoint, options: DialOptions, loop: EventLoop, counters: DialCounters, owner: DialOwner) {
    this.#to = to
    this.#options = options
    this.#loop = loop
    this.#counters = counters
    this.#owner = owner
    this.#source = options.source.kind
  }

  /** The socket that it begins with. */
  get plan(): SocketPlan {
    return this.#planFor(this.#options.source.bind)
  }

  get isSettled(): boolean {
    return this.#settled
  }

  /** `socket`: one that was made as `plan` says; undefined: it makes its own. */
  start(socket?: Watch): void {
    if (this.#settled) {
      if (socket !== undefined) this.#loop.close(socket)
      return
    }
    const connecting = this.#connectFromSource(socket)
    if (typeof connecting === 'number') {
      this.#settled = true
      this.#owner.onDialFailed(reasonOf(-connecting), -connecting)
      return
    }
    this.#watch = connecting
    const { connectMs } = this.#options
    if (connectMs > 0) this.#timer = setTimeout(() => this.#fail('dial-timeout', ETIMEDOUT), connectMs)
  }

  onEvents(events: number): void {
    const watch = this.#watch
    if (watch === undefined) return
    if ((events & (EPOLLERR | EPOLLHUP)) !== 0) {
      const errno = takeSocketError(watch.fd) || ECONNRESET
      this.#fail(reasonOf(errno), errno)
    } else if ((events & EPOLLOUT) !== 0) {
      this.#settle()
      this.#owner.onDialled(watch, events, this.#source)
    }
  }

  /** Nobody waits for the answer any more. */
  abandon(): void {
    this.#fail('client-gone', 0)
  }

  #fail(reason: DialReason, errno: number): void {
    if (this.#settled) return
    this.#settle()
    if (this.#watch !== undefined) {
      setResetOnClose(this.#watch.fd)
      this.#loop.close(this.#watch)
    }
    this.#owner.onDialFailed(reason, errno)
  }

  #settle(): void {
    this.#settled = true
    clearTimeout(this.#timer)
  }

  /** A socket whose connect is under way, or the negative errno. Tries the wanted source, then what it may fall back to. */
  #connectFromSource(socket: Watch | undefined): Watch | number {
    const { kind, bind } = this.#options.source
    if (bind?.port === 0) return this.#connectFromAny(bind, socket)
    const result = this.#connect(bind, socket)
    if (kind !== 'client-port' || !isPortTaken(result)) return result
    this.#counters.sourcePortFallbacks++
    this.#source = 'client'
    return this.#connectFromAny({ address: bind!.address, port: 0 })
  }

  /** From any port of an address: one that the kernel finds, or one outside of its range when that is crowded. */
  #connectFromAny(bind: Endpoint, socket?: Watch): Watch | number {
    const { ports } = this.#options
    const to = this.#to
    const startedAt = performance.now()
    if (!ports.isCrowded(bind.address, to, startedAt)) {
      const result = this.#connect(bind, socket)
      const now = performance.now()
      const isFound = result !== -EADDRNOTAVAIL
      ports.noteConnect(bind.address, to, isFound ? now - startedAt : Number.POSITIVE_INFINITY, now)
      if (isFound) return result
    } else if (socket !== undefined) this.#loop.close(socket)
    this.#counters.sourcePortSearches++
    let result: Watch | number = -EADDRNOTAVAIL
    for (let tries = 0; tries < PORT_SEARCHES && isPortTaken(result); tries++) {
      result = this.#connect({ address: bind.address, port: ports.next() })
    }
    return isPortTaken(result) ? this.#connect(bind) : result
  }

  #connect(bind: Endpoint | undefined, socket?: Watch): Watch | number {
    const opened = socket ?? this.#openSocket(bind)
    if (typeof opened === 'number') return opened
    this.#counters.dials++
    const { first } = this.#options
    const errno = first === undefined ? startConnect(opened.fd, this.#to) : startFastOpen(opened.fd, this.#to, first)
    if (errno === 0) return opened
    this.#loop.close(opened)
    return -errno
  }

  /** The socket, or the negative errno. */
  #openSocket(bind: Endpoint | undefined): Watch | number {
    try {
      return openSocket(this.#planFor(bind), this.#loop)
    } catch (error) {
      if (error instanceof SyscallError) return -error.errno
      throw error
    }
  }

  #planFor(bind: Endpoint | undefined): SocketPlan {
    const family = familyOf(this.#to.address)
    const options = socketOptions(family, this.#options, bind)
    return { family, options, bind, events: this.#options.events, target: this }
  }
}

function isPortTaken(result: Watch | number): boolean {
  return result === -EADDRINUSE || result === -EADDRNOTAVAIL
}

/** Of a socket to dial with: those of its source come last, and before bind(). */
function socketOptions(
  family: Family,
  { mark, dscp, deadPeerMs, clientSpoke }: DialOptions,
  bind: Endpoint | undefined,
): SocketOption[] {
  const all = [NO_DELAY, URGENT_INLINE]
  if (deadPeerMs > 0) all.push(...keepalive(deadPeerMs))
  if (clientSpoke === true) all.push(NO_QUICK_ACK)
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
