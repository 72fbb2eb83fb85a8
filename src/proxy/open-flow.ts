import type { ListenerConfig } from '../config/types.ts'
import { SyscallError } from '../sys/errno.ts'
import { setResetOnClose } from '../sys/options.ts'
import { type Accepted, closeFd } from '../sys/socket.ts'
import { refusalOf } from './admission.ts'
import type { StreamApp } from './app.ts'
import { type Arrival, arrivalOf } from './arrival.ts'
import type { ProxyContext } from './context.ts'
import { Flow } from './flow.ts'
import type { HeaderOutcome } from './proxy-header.ts'
import type { Target } from './target.ts'

/** Of the listener that has accepted a connection. */
export interface OpenFlowOptions {
  readonly target: Target | undefined
  /** Serves all flows of the listener. */
  readonly app: StreamApp | undefined
  /** What a proxy in front said before. */
  readonly header: HeaderOutcome | undefined
}

/**
 * Begins one flow's life: opens the record → refuses a loop → lets the flow decide, dial, relay and close with one reason, or an app serve it
 * in place of all that. Takes the accepted socket; it is closed on every path, and the record is told exactly once.
 */
export function openFlow(
  id: number,
  accepted: Accepted,
  listener: ListenerConfig,
  { target, app, header }: OpenFlowOptions,
  context: ProxyContext,
): void {
  const flow = tryFlow(id, accepted, listener, target, header, context)
  if (flow === undefined) return // no memory for it in the kernel: the client has had its reset
  const refusal = header?.kind === 'failed' ? header.why : refusalOf(flow, context)
  if (refusal !== undefined) flow.resetClient(refusal)
  else if (app !== undefined) flow.serve(app)
  else flow.decide() // then dial(), and onOpened() relays, until onRelayEnd()
}

function tryFlow(
  id: number,
  { fd, clientAddr }: Accepted,
  listener: ListenerConfig,
  target: Target | undefined,
  header: HeaderOutcome | undefined,
  context: ProxyContext,
): Flow | undefined {
  const told = header?.kind === 'read' ? header.told : undefined
  try {
    const arrival = askArrival(fd, listener)
    return new Flow(fd, { id, listener, client: clientAddr, front: undefined, ...arrival, ...told }, target, context)
  } catch (error) {
    if (error instanceof SyscallError) return undefined
    throw error
  }
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
