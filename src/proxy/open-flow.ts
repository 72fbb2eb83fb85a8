import type { ListenerConfig } from '../config/types.ts'
import { RELAY_EVENTS } from '../relay/tcp.ts'
import { type Connection, watchConnections } from '../sys/accept.ts'
import { SyscallError } from '../sys/errno.ts'
import { setResetOnClose } from '../sys/options.ts'
import type { Accepted } from '../sys/socket.ts'
import { refusalOf } from './admission.ts'
import type { StreamApp } from './app.ts'
import { type Arrival, arrivalOf } from './arrival.ts'
import type { ProxyContext } from './context.ts'
import { Flow } from './flow.ts'
import { awaitHeader, type HeaderOutcome, sendsHeader } from './proxy-header.ts'
import type { Target } from './target.ts'

/** Of the listener that has accepted connections. */
export interface OpenFlowOptions {
  readonly target: Target | undefined
  /** Serves all flows of the listener. */
  readonly app: StreamApp | undefined
  nextId(): number
}

/** Begins the flows of sockets that were accepted together, which it takes. Where a proxy in front tells whose they are, that is awaited first. */
export function openFlows(
  accepted: readonly Accepted[],
  listener: ListenerConfig,
  options: OpenFlowOptions,
  context: ProxyContext,
): void {
  for (const connection of watchConnections(accepted, RELAY_EVENTS, context.resources.loop)) {
    const open = (header?: HeaderOutcome): void => openFlow(connection, header, listener, options, context)
    if (sendsHeader(listener, connection.clientAddr)) awaitHeader(connection, context, open)
    else open()
  }
}

/**
 * Begins one flow's life: opens the record → refuses a loop → lets the flow decide, dial, relay and close with one reason, or an app serve it
 * in place of all that. Takes the accepted socket; it is closed on every path, and the record is told exactly once.
 */
function openFlow(
  { watch, clientAddr }: Connection,
  header: HeaderOutcome | undefined,
  listener: ListenerConfig,
  { target, app, nextId }: OpenFlowOptions,
  context: ProxyContext,
): void {
  const arrival = askArrival(watch.fd, listener)
  if (arrival === undefined) {
    setResetOnClose(watch.fd)
    context.resources.loop.close(watch)
    return
  }
  const told = header?.kind === 'read' ? header.told : undefined
  const { client = clientAddr, front, originalDst = arrival.originalDst } = told ?? {}
  const identity = { id: nextId(), listener, client, front, reached: arrival.reached, originalDst }
  const flow = new Flow(watch, identity, target, context)
  const refusal = header?.kind === 'failed' ? header.why : refusalOf(flow, context)
  if (refusal !== undefined) flow.resetClient(refusal)
  else if (app !== undefined) flow.serve(app)
  else flow.decide() // then dial(), and onOpened() relays, until onRelayEnd()
}

/** Undefined where the kernel does not tell. */
function askArrival(fd: number, { intercept }: ListenerConfig): Arrival | undefined {
  try {
    return arrivalOf(fd, intercept)
  } catch (error) {
    if (error instanceof SyscallError) return undefined
    throw error
  }
}
