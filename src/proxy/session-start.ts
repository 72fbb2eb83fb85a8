import type { ListenerConfig } from '../config/types.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import type { DatagramApp } from './app.ts'
import type { ReplyOutlet } from './reply-outlet.ts'

/** Ports where one question has one answer: DNS, NTP, NetBIOS names, SNMP (RFC 4787 REQ-5a lets such be forgotten sooner). */
export const QUERY_PORTS: ReadonlySet<number> = new Set([53, 123, 137, 161])

/** What is known of a datagram when a session for it is to be opened. */
export interface SessionStart {
  readonly key: Uint32Array
  readonly hash: number
  readonly client: Endpoint
  /** Where the datagram came to: the original destination itself, unless rules rewrote it. */
  readonly reached: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  /** By which the datagram came; 0 where no rule asks about it. */
  readonly interfaceIndex: number
  readonly listener: ListenerConfig
  /** The client's datagrams that came now, each by itself; only valid during the call. */
  datagrams(): Uint8Array[]
  /** The way of answers; undefined: by a reply socket, and later perhaps by one of its own. */
  readonly replyBy: ReplyOutlet | undefined
  /** Calls back when what waited at the listener so far has been taken. */
  afterQueue(work: () => void): void
  readonly app: DatagramApp | undefined
}

/** Both ends of a session's socket, where it has the client's port. */
export function endsOf({ client, upstream }: Pick<SessionStart, 'client' | 'upstream'>): string {
  return `${formatEndpoint(client)} ${formatEndpoint(upstream)}`
}
