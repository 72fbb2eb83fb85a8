import { DEFAULT_TIMEOUTS } from '../config/defaults.ts'
import { type ErrorCode, LimpidError } from '../errors.ts'
import { type Endpoint, familyOf, formatEndpoint } from '../net/address.ts'
import { MessageBatch } from '../relay/message-batch.ts'
import type { RelayReason } from '../relay/reasons.ts'
import { RELAY_EVENTS, TcpRelay } from '../relay/tcp.ts'
import { EADDRINUSE, EADDRNOTAVAIL, EPERM, errnoName } from '../sys/errno.ts'
import { localPortRange } from '../sys/local-ports.ts'
import { EPOLLOUT, eventLoop } from '../sys/loop.ts'
import { setUserTimeout } from '../sys/options.ts'
import { PipePool } from '../sys/pipes.ts'
import { PIPE_BYTES } from './budget.ts'
import { type DialFailure, dial } from './dial.ts'
import { expectEndpoint } from './expect-endpoint.ts'
import type { DialReason } from './record.ts'
import { SourcePorts } from './source-ports.ts'
import { TcpSocket } from './tcp-socket.ts'

export interface DialTcpOptions {
  /** The address that the server sees; need not be ours (IP_TRANSPARENT, needs CAP_NET_RAW). Port 0 or left out: any. */
  source?: { address: string; port?: number }
  /** fwmark (SO_MARK). */
  mark?: number
  /** 10,000 when left out; 0: as long as the kernel tries. */
  timeoutMs?: number
  /** TCP_USER_TIMEOUT; left out: none. It also counts the time for which a living peer keeps its window closed. */
  userTimeoutMs?: number
  signal?: AbortSignal
}

/** What a dial that failed is called for a program. */
export const DIAL_CODES: Readonly<Record<DialReason, ErrorCode>> = {
  'dial-refused': 'LIMPID_DIAL_REFUSED',
  'dial-timeout': 'LIMPID_DIAL_TIMEOUT',
  'dial-unreachable': 'LIMPID_DIAL_UNREACHABLE',
  'dial-failed': 'LIMPID_DIAL_FAILED',
  'upstream-reset': 'LIMPID_DIAL_FAILED',
  'client-gone': 'LIMPID_DIAL_FAILED', // aborted by the caller's signal
}

/**
 * Opens a TCP connection, from an address that need not be ours.
 * @throws LimpidError LIMPID_DIAL_REFUSED, _TIMEOUT, _UNREACHABLE, _SOURCE (the source address or port cannot be had),
 * _FAILED, LIMPID_CAPABILITY, LIMPID_USAGE when an address is none; or the signal's reason.
 */
export async function dialTcp(server: Endpoint, options: DialTcpOptions = {}): Promise<TcpSocket> {
  const { signal, source, timeoutMs = DEFAULT_TIMEOUTS.connectMs } = options
  signal?.throwIfAborted()
  const to = expectEndpoint('dialTcp', server, 1)
  const bind = source === undefined ? undefined : expectEndpoint('dialTcp, source', source, 0)
  if (bind !== undefined && familyOf(bind.address) !== familyOf(to.address)) {
    throw new LimpidError('LIMPID_USAGE', `dialTcp: the source ${bind.address} cannot dial ${to.address}`, {
      cure: 'take a source of the same IP version',
    })
  }
  let onAbort: (() => void) | undefined
  const outcome = await dial(
    to,
    {
      source: { kind: bind === undefined ? 'proxy' : 'address', bind },
      mark: options.mark ?? 0,
      connectMs: timeoutMs,
      deadPeerMs: DEFAULT_TIMEOUTS.deadPeerMs,
      first: undefined,
      ports: sourcePorts(),
      events: EPOLLOUT,
    },
    eventLoop,
    { dials: 0, sourcePortFallbacks: 0, sourcePortSearches: 0 },
    (abandon) => {
      onAbort = abandon
      signal?.addEventListener('abort', abandon, { once: true })
    },
  )
  if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
  if (outcome.kind === 'failed') {
    signal?.throwIfAborted()
    throw dialError(to, bind, outcome, timeoutMs)
  }
  if (options.userTimeoutMs !== undefined) setUserTimeout(outcome.fd, options.userTimeoutMs)
  return new TcpSocket(outcome.fd, outcome.sourceAddr, to)
}

let sharedPorts: SourcePorts | undefined

/** One for all dials of the program: it remembers where ports are crowded. */
function sourcePorts(): SourcePorts {
  sharedPorts ??= new SourcePorts(localPortRange())
  return sharedPorts
}

function dialError(to: Endpoint, bind: Endpoint | undefined, failure: DialFailure, timeoutMs: number): LimpidError {
  const from = bind === undefined ? '' : ` from ${formatEndpoint(bind)}`
  const what = `cannot dial ${formatEndpoint(to)}${from}`
  if (failure.errno === EPERM) {
    return new LimpidError('LIMPID_CAPABILITY', `${what}: CAP_NET_RAW is missing`, {
      cure: 'run as root or with CAP_NET_RAW (and CAP_NET_ADMIN for a mark) as ambient capabilities',
    })
  }
  if (bind !== undefined && (failure.errno === EADDRINUSE || failure.errno === EADDRNOTAVAIL)) {
    return new LimpidError('LIMPID_DIAL_SOURCE', `${what}: ${errnoName(failure.errno)}`, {
      cure: 'leave the port out, or take another source',
    })
  }
  const why = failure.reason === 'dial-timeout' ? `no answer in ${timeoutMs} ms` : errnoName(failure.errno)
  return new LimpidError(DIAL_CODES[failure.reason], `${what}: ${why}`, { cure: CURES[failure.reason] })
}

const CURES: Readonly<Partial<Record<DialReason, string>>> = {
  'dial-refused': 'see that something listens there: ss -Htln on the server',
  'dial-timeout': 'see whether its packets and the answers are routed and not dropped, or wait longer',
  'dial-unreachable': 'see the routes: ip route get ADDRESS',
}

export interface RelayOutcome {
  readonly reason: RelayReason
  readonly bytesClientToUpstream: number
  readonly bytesUpstreamToClient: number
}

/**
 * Relays between two sockets until both directions are closed, and takes both. Half-closes pass through, and so do
 * resets. Resolves with why it ended and the bytes moved; a network's misfortunes are a reason, not an exception.
 * @throws LimpidError LIMPID_USAGE when one of the sockets was handed on or closed before; the other is closed then.
 */
export async function relayTcp(client: TcpSocket, upstream: TcpSocket): Promise<RelayOutcome> {
  if (!client.isOpen || !upstream.isOpen) {
    client.close()
    upstream.close() // and takeFd() says what was wrong
  }
  const pipes = new PipePool({ limit: 2, keepIdle: 0, capacity: PIPE_BYTES })
  const pending = { onEvents: () => {} } // replaced before any event can come
  const watch = (socket: TcpSocket) => eventLoop.take(socket.takeFd(), RELAY_EVENTS, pending)
  const clientWatch = watch(client)
  const upstreamWatch = watch(upstream)
  return new Promise((resolve) => {
    const onRelayEnd = (reason: RelayReason): void => {
      const { bytesClientToUpstream, bytesUpstreamToClient } = relay
      resolve({ reason, bytesClientToUpstream, bytesUpstreamToClient })
    }
    const resources = {
      loop: eventLoop,
      pipes,
      messages: new MessageBatch(eventLoop),
      waitingBytes: 0,
    }
    const relay = new TcpRelay(clientWatch, upstreamWatch, resources, { onRelayEnd })
    relay.begin(0, 0)
  })
}
