import { EAGAIN, EMSGSIZE, ENOBUFS } from '../sys/errno.ts'

/** Why a datagram went no further. A closed list: what is lost is counted by it. */
const DROP_REASONS = [
  /** Of a session that must not be: it would dial ourselves, or lend an address that may not be lent (see RefusalReason). */
  'loop',
  'source',
  /** A rule of the policy turned its session away. */
  'policy',
  /** A rule asks what its client says first, and that breaks the rules of its protocol. */
  'malformed',
  /** The same, and it was not complete in time, or others that came later took its room. */
  'hello-timeout',
  /** A rule's limit of new flows was reached. */
  'policy-limit',
  /** A rule's limit of bytes was reached. */
  'policy-rate',
  /** The hook that was asked about its session failed. */
  'hook-failed',
  /** A hook is being asked about its session, or whose its host's address is, and more came meanwhile than is kept. */
  'decision-waiting',
  /** The host that its client names does not have the address that it sends to, or nobody says so. */
  'host-mismatch',
  /** All sessions are in use, and each moved a datagram a moment ago. */
  'session-limit',
  /** The same for the sessions of this client. */
  'client-limit',
  /** More new sessions a second than may be. */
  'session-rate',
  /** The proxy stops, and begins no more sessions. */
  'stopping',
  /** No socket for the session: no address, port, descriptor or route. */
  'dial-failed',
  /** An app turned it down: its own counters say why. */
  'app',
  /** Larger than the path can carry, and fragments were not possible. */
  'too-big',
  /** The kernel's send buffers were full. */
  'send-buffer',
  /** The kernel refused to send it for another reason: a firewall (EPERM), no route … */
  'send-failed',
  /** The listener's receive buffer was full: lost before we saw it. */
  'listener-buffer',
  /** The same for a stream's own socket towards its client. */
  'client-buffer',
  /** The same for the socket of a session towards its upstream. */
  'upstream-buffer',
  /** It came to a session's socket from somebody else than the upstream, before the socket was connected. */
  'stranger',
  /** No way to send the answer from the address that the client asked. */
  'reply-address',
] as const
export type DropReason = (typeof DROP_REASONS)[number]

/** What the kernel meant when it did not take a datagram. */
export function dropReasonOf(errno: number): DropReason {
  if (errno === EMSGSIZE) return 'too-big'
  return errno === EAGAIN || errno === ENOBUFS ? 'send-buffer' : 'send-failed'
}

/** Datagrams since the proxy was made. */
export interface DatagramCounters {
  datagramsClientToUpstream: number
  datagramsUpstreamToClient: number
  readonly dropped: Record<DropReason, number>
  /** ICMP errors that came from servers, and those that were passed on to clients; the other way alone those about the path MTU. */
  errorsFromUpstream: number
  errorsToClient: number
  errorsFromClient: number
  errorsToUpstream: number
  /** `client-port` gave way to `client` for a session. */
  sessionPortFallbacks: number
  /** Sessions that made room for others. */
  evictions: number
}

export function newDatagramCounters(): DatagramCounters {
  return {
    datagramsClientToUpstream: 0,
    datagramsUpstreamToClient: 0,
    dropped: Object.fromEntries(DROP_REASONS.map((reason) => [reason, 0])) as Record<DropReason, number>,
    errorsFromUpstream: 0,
    errorsToClient: 0,
    errorsFromClient: 0,
    errorsToUpstream: 0,
    sessionPortFallbacks: 0,
    evictions: 0,
  }
}
