import type { Intercept } from '../config/types.ts'
import { type Endpoint, familyOf } from '../net/address.ts'
import { originalDestination } from '../sys/options.ts'
import { localEndpoint } from '../sys/socket.ts'

/** Do packets reach the listener with the client's destination still in them? Its sockets must be transparent then. */
export function arrivesUntouched(intercept: Intercept): boolean {
  return intercept === 'tproxy' || intercept === 'mark'
}

/** Has the kernel put the listener's own address in the place of the client's destination? */
export function arrivesRewritten(intercept: Intercept): boolean {
  return intercept === 'redirect' || intercept === 'dnat'
}

/** What an accepted socket tells of how the client came to it. */
export interface Arrival {
  /** Our end of the client's connection. */
  readonly reached: Endpoint
  /** Where the client dialled: the same, unless it was rewritten. */
  readonly originalDst: Endpoint
}

/**
 * Of a flow that conntrack does not know nothing was rewritten: the client dialled the listener itself.
 * @throws SyscallError
 */
export function arrivalOf(fd: number, intercept: Intercept): Arrival {
  const reached = localEndpoint(fd)
  // never asked of a transparent socket: there the answer may be another connection's
  const rewritten = arrivesRewritten(intercept) ? originalDestination(fd, familyOf(reached.address)) : undefined
  return { reached, originalDst: rewritten ?? reached }
}
