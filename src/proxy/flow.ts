import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { RelayReason } from '../relay/reasons.ts'
import { RELAY_EVENTS, TcpRelay } from '../relay/tcp.ts'
import { errnoName, SyscallError } from '../sys/errno.ts'
import { EPOLLERR, type Watch } from '../sys/loop.ts'
import { setKeepalive, setResetOnClose } from '../sys/options.ts'
import { type Accepted, closeFd, type FirstBytes, receive } from '../sys/socket.ts'
import { refusalOf } from './admission.ts'
import type { StreamApp } from './app.ts'
import { serveStream } from './app-stream.ts'
import { type Arrival, arrivalOf } from './arrival.ts'
import type { ProxyContext } from './context.ts'
import { type DialFailure, type Dialled, dial } from './dial.ts'
import { type CloseReason, type FlowRecord, REFUSALS } from './record.ts'
import { type DialSource, dialSource } from './source.ts'
import { type Target, upstreamOf } from './target.ts'

/** One TCP flow, between accept and its record. */
export interface Flow {
  readonly id: number
  readonly listener: ListenerConfig
  readonly client: Endpoint
  /** The client's socket until the relay takes it. */
  readonly watch: Watch
  /** Our end of the client's connection: the original destination itself, unless rules rewrote it. */
  readonly reached: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  readonly source: DialSource
  readonly startedAt: number
  readonly acceptedAt: number
  dialMs: number
  /** 0 unless the dial failed. */
  dialErrno: number
  dialled: Dialled | undefined
  relay: TcpRelay | undefined
  /** Bytes of a flow that an app serves: there is no relay to count them. */
  served: { readonly bytesClientToUpstream: number; readonly bytesUpstreamToClient: number } | undefined
  first: FirstBytes | undefined
  /** The upstream's silent death will be noticed. */
  watchesPeer: boolean
  stopping: boolean
  /** Ends a dial that is under way, or what an app does. */
  abandon: (() => void) | undefined
}

/**
 * One flow's life. Takes the accepted socket; it is closed on every path, and the record is told exactly once.
 * Opens the record → refuses a loop → dials → relays → closes with one reason. An app serves the flow in place of dial and relay.
 */
export async function runFlow(
  id: number,
  accepted: Accepted,
  listener: ListenerConfig,
  target: Target | undefined,
  context: ProxyContext,
  app?: StreamApp,
): Promise<void> {
  const client = new ClientEvents()
  let flow: Flow
  try {
    flow = openFlow(id, accepted, listener, target, client, context)
  } catch (error) {
    if (error instanceof SyscallError) return // no memory for it in the kernel: the client has had its reset
    throw error
  }
  const refusal = refusalOf(flow, context)
  if (refusal !== undefined) return resetClient(flow, refusal, context)
  if (app !== undefined) return closeFlow(flow, await serveStream(flow, app, context), context)

  const dialled = await dialUpstream(flow, client, context)
  if (dialled.kind === 'failed') {
    flow.dialErrno = dialled.errno
    return resetClient(flow, flow.stopping ? 'shutdown' : dialled.reason, context)
  }

  const reason = await relayFlow(flow, client, dialled, context)
  closeFlow(flow, reason, context)
}

function openFlow(
  id: number,
  accepted: Accepted,
  listener: ListenerConfig,
  target: Target | undefined,
  client: ClientEvents,
  context: ProxyContext,
): Flow {
  const { reached, originalDst } = askArrival(accepted.fd, listener)
  const flow: Flow = {
    id,
    listener,
    client: accepted.clientAddr,
    watch: context.resources.loop.take(accepted.fd, RELAY_EVENTS, client),
    reached,
    originalDst,
    upstream: listener.dns?.upstreams[0] ?? upstreamOf(originalDst, target), // the app may take another of them
    source: dialSource(listener.source, accepted.clientAddr),
    startedAt: Date.now(),
    acceptedAt: performance.now(),
    dialMs: 0,
    dialErrno: 0,
    dialled: undefined,
    relay: undefined,
    served: undefined,
    first: undefined,
    watchesPeer: false,
    stopping: false,
    abandon: undefined,
  }
  context.flows.add(flow)
  countClient(context.flowsByClient, flow.client.address, 1)
  return flow
}

/** Resets the client when the kernel does not tell. */
function askArrival(fd: number, listener: ListenerConfig): Arrival {
  try {
    return arrivalOf(fd, listener.intercept)
  } catch (error) {
    setResetOnClose(fd)
    closeFd(fd)
    throw error
  }
}

/** Epoll's reports about the client until the relay takes over: edge-triggered, they do not come again. */
class ClientEvents {
  events = 0
  onReset: (() => void) | undefined

  onEvents(events: number): void {
    this.events |= events
    if ((events & EPOLLERR) !== 0) this.onReset?.()
  }
}

/** What the client has sent already, if anything, for the SYN to the upstream. A FIN or an error is left to the relay. */
function readFirstBytes(fd: number): FirstBytes | undefined {
  const buffer = new Uint8Array(FIRST_BYTES)
  const count = receive(fd, buffer, FIRST_BYTES)
  return count > 0 ? { bytes: buffer.subarray(0, count), sent: 0 } : undefined
}

async function dialUpstream(flow: Flow, client: ClientEvents, context: ProxyContext): Promise<Dialled | DialFailure> {
  const { timeouts, fastOpen } = flow.listener
  const { connectMs } = timeouts
  // most flows end before a peer could be missed: sweepFlow() sets that timeout on those that do not
  const { mark, ports } = context
  if (fastOpen) flow.first = readFirstBytes(flow.watch.fd)
  const { source, first } = flow
  const options = { source, mark, connectMs, deadPeerMs: 0, first, ports, events: RELAY_EVENTS }
  try {
    return await dial(flow.upstream, options, context.resources.loop, context.counters, (abandon) => {
      flow.abandon = abandon
      client.onReset = abandon // nobody waits for the answer any more
    })
  } catch (error) {
    if (error instanceof SyscallError) return { kind: 'failed', reason: 'dial-failed', errno: error.errno }
    throw error
  } finally {
    flow.abandon = undefined
    client.onReset = undefined
    flow.dialMs = performance.now() - flow.acceptedAt
  }
}

function relayFlow(flow: Flow, client: ClientEvents, dialled: Dialled, context: ProxyContext): Promise<RelayReason> {
  flow.dialled = dialled
  return new Promise((resolve) => {
    const clientSide = { watch: flow.watch, events: client.events }
    const upstreamSide = { watch: dialled.watch, events: dialled.events() }
    flow.relay = new TcpRelay(clientSide, upstreamSide, context.resources, resolve, flow.first)
    if (flow.stopping) flow.relay.end('shutdown')
  })
}

/** Ends the flow now, with a reset to both peers; its record follows. */
export function stopFlow(flow: Flow): void {
  flow.stopping = true
  flow.abandon?.()
  flow.relay?.end('shutdown')
}

const FIRST_BYTES = 1_220 // what fits into a SYN at the smallest IPv6 MTU (RFC 8200 §5), less 60 bytes of headers

/** How old a flow gets before its upstream is watched for a silent death: five system calls that short flows save. */
const WATCH_PEER_AFTER_MS = 1_000

/** To be called every second or more often: ends the flow when a timeout has passed. `now`: monotonic milliseconds. */
export function sweepFlow(flow: Flow, now: number): void {
  const { relay, dialled, listener } = flow
  if (relay === undefined || dialled === undefined) return // a dial has its own timer
  relay.expire(now, listener.timeouts)
  if (flow.watchesPeer || relay.ended || now - flow.acceptedAt < WATCH_PEER_AFTER_MS) return
  flow.watchesPeer = true // the client's socket has it from its listener
  if (listener.timeouts.deadPeerMs > 0) setKeepalive(dialled.watch.fd, listener.timeouts.deadPeerMs)
}

/** Ends a flow that has no upstream: the client is told by a reset, never by silence. */
function resetClient(flow: Flow, reason: CloseReason, context: ProxyContext): void {
  setResetOnClose(flow.watch.fd)
  context.resources.loop.close(flow.watch)
  closeFlow(flow, reason, context)
}

function closeFlow(flow: Flow, reason: CloseReason, context: ProxyContext): void {
  context.flows.delete(flow)
  countClient(context.flowsByClient, flow.client.address, -1)
  const refused = reason in REFUSALS
  const record: FlowRecord = {
    id: flow.id,
    listener: flow.listener.name,
    protocol: 'tcp',
    client: flow.client,
    originalDst: flow.originalDst,
    name: context.nameOf(flow.client.address, flow.originalDst.address),
    upstream: refused ? undefined : flow.upstream,
    sourceAddr: flow.dialled?.sourceAddr,
    source: flow.dialled?.source ?? (refused ? undefined : flow.source.kind),
    bytesClientToUpstream: (flow.relay ?? flow.served)?.bytesClientToUpstream ?? 0,
    bytesUpstreamToClient: (flow.relay ?? flow.served)?.bytesUpstreamToClient ?? 0,
    datagrams: undefined,
    startedAt: flow.startedAt,
    dialMs: flow.dialMs,
    durationMs: performance.now() - flow.acceptedAt,
    reason,
    error: flow.dialErrno === 0 ? undefined : errnoName(flow.dialErrno),
    refused,
  }
  context.onFlowEnd(record)
}

function countClient(counts: Map<string, number>, address: string, by: 1 | -1): void {
  const count = (counts.get(address) ?? 0) + by
  if (count > 0) counts.set(address, count)
  else counts.delete(address)
}
