import type { Outbox } from '../relay/outbox.ts'
import type { SessionTable } from '../relay/session-table.ts'
import type { DatagramArena } from '../sys/datagram-arena.ts'
import type { AskedSessions } from './asked-sessions.ts'
import type { ClientErrors } from './client-errors.ts'
import type { ProxyContext } from './context.ts'
import type { DatagramCounters, DropReason } from './drops.ts'
import type { HalfHellos } from './half-hellos.ts'
import type { ReplySockets } from './reply-sockets.ts'
import type { UdpSession } from './udp-session.ts'
import type { UnfinishedHellos } from './unfinished-hellos.ts'

/** What the UDP sessions of one proxy share, beside what they share with TCP flows. */
export interface UdpContext {
  readonly proxy: ProxyContext
  readonly arena: DatagramArena
  readonly outbox: Outbox
  readonly table: SessionTable<UdpSession>
  readonly replies: ReplySockets
  readonly errors: ClientErrors
  readonly counters: DatagramCounters
  readonly hellos: UnfinishedHellos
  readonly asked: AskedSessions
  readonly halves: HalfHellos
  /** Ends of the sessions that have their client's port: see endsOf(). */
  readonly ends: Set<string>
  countDrop(reason: DropReason, datagrams: number): void
  /** Counts datagrams that the kernel did not take, by its errno. */
  countLost(errno: number, datagrams: number): void
  /** Why no other session may begin now; undefined when one may, which is counted. */
  mayBegin(now: number): DropReason | undefined
  nextId(): number
}
