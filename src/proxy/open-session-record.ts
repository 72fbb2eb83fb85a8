import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { Finding } from '../policy/facts.ts'
import type { ShadowDifference } from '../policy/shadow.ts'
import { SessionEntry } from '../relay/session-table.ts'
import { errnoName } from '../sys/errno.ts'
import type { SessionDecision } from './decide-session.ts'
import type { HostOutcome } from './host-check.ts'
import type { CloseReason, FlowRecord, SourceUsed } from './record.ts'
import type { SessionStart } from './session-start.ts'
import type { UdpContext } from './udp-context.ts'

/** The record of a UDP session while it is written: what is known of the session and counted, and becomes its FlowRecord at the end. */
export class OpenSessionRecord extends SessionEntry {
  readonly context: UdpContext
  readonly id: number
  readonly listener: ListenerConfig
  readonly client: Endpoint
  readonly reached: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  /** By which its first datagram came; 0 where no rule asks about it. */
  readonly interfaceIndex: number
  readonly rule: string | undefined
  readonly shadow: ShadowDifference | undefined
  /** What the client's first datagrams are, or those of the connection that it began last within the session. */
  finding: Finding | undefined
  hostChecked: HostOutcome | undefined
  /** Whose address the server sees. */
  readonly source: SourceUsed
  readonly #startedAt = Date.now()
  readonly #openedAt: number
  datagramsUp = 0
  datagramsDown = 0
  bytesUp = 0
  bytesDown = 0
  dropped = 0
  /** The last error that ICMP told of. */
  errno: number | undefined

  constructor(start: SessionStart, decided: SessionDecision, source: SourceUsed, context: UdpContext) {
    const { now } = context.proxy.resources.loop
    super(start.key, start.hash, start.client.address, now)
    this.context = context
    this.id = context.nextId()
    this.client = start.client
    this.reached = start.reached
    this.originalDst = start.originalDst
    this.upstream = start.upstream
    this.interfaceIndex = start.interfaceIndex
    this.listener = start.listener
    this.rule = decided.rule
    this.shadow = decided.shadow
    this.finding = decided.finding
    this.hostChecked = decided.hostChecked
    this.source = source
    this.#openedAt = now
  }

  /** `sourceAddr`: our end towards the upstream. */
  toRecord(reason: CloseReason, sourceAddr: Endpoint): FlowRecord {
    return {
      id: this.id,
      listener: this.listener.name,
      protocol: 'udp',
      client: this.client,
      front: undefined,
      originalDst: this.originalDst,
      name: this.context.proxy.nameOf(this.client.address, this.originalDst.address),
      rule: this.rule,
      shadow: this.shadow,
      detected: this.finding?.protocol,
      host: this.finding?.host,
      hostChecked: this.hostChecked,
      upstream: this.upstream,
      sourceAddr,
      source: this.source,
      bytesClientToUpstream: this.bytesUp,
      bytesUpstreamToClient: this.bytesDown,
      datagrams: {
        clientToUpstream: this.datagramsUp,
        upstreamToClient: this.datagramsDown,
        dropped: this.dropped,
      },
      startedAt: this.#startedAt,
      dialMs: 0,
      durationMs: performance.now() - this.#openedAt,
      reason,
      error: this.errno === undefined ? undefined : errnoName(this.errno),
      refused: false,
    }
  }
}
