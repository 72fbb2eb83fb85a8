import type { Outlet } from '../relay/outbox.ts'
import { EMSGSIZE } from '../sys/errno.ts'
import { type QueuedError, takeQueuedError } from '../sys/error-queue.ts'
import { allowFragments } from '../sys/options.ts'

const MAX_ERRORS = 64 // then epoll tells again

/** An answer comes from here: the address and port that the client asked. */
export interface ReplyOutlet extends Outlet {
  /** Whether each datagram must say from where it comes. */
  readonly needsFrom: boolean
}

/** What hosts and routers on the clients' side have told about answers that left by a socket. */
export function takeErrors(outlet: Outlet, onError: (error: QueuedError) => void): void {
  for (let i = 0; i < MAX_ERRORS && outlet.fd >= 0; i++) {
    const error = takeQueuedError(outlet.fd)
    if (error === undefined) return
    // IPv4 does not remember the MTU of a path for a source that is not its own (__ipv4_sk_update_pmtu, net/ipv4/route.c)
    if (error.errno === EMSGSIZE && outlet.family === 4) allowFragments(outlet.fd)
    onError(error)
  }
}
