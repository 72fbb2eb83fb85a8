import type { ListenerConfig } from '../config/types.ts'
import type { Connection } from '../sys/accept.ts'
import { SyscallError } from '../sys/errno.ts'
import { setResetOnClose } from '../sys/options.ts'
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
  { watch, clientAddr }: Connection,
  listener: ListenerConfig,
  { target, app, header }: OpenFlowOptions,
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
  const identity = { id, listener, client, front, reached: arrival.reached, originalDst }
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
