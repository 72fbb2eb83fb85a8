import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { Finding } from '../policy/facts.ts'
import type { ShadowDifference } from '../policy/shadow.ts'
import type { Arrival } from './arrival.ts'
import type { ProxyContext } from './context.ts'
import type { HostOutcome } from './host-check.ts'
import { AS_LISTENER, type Way } from './opening.ts'
import { type CloseReason, type FlowRecord, REFUSALS, type SourceUsed } from './record.ts'
import { type DialSource, dialSource } from './source.ts'
import { type Target, upstreamOf } from './target.ts'

/** Whose flow it is. */
export interface Identity extends Arrival {
  /** Counts up from 1 in each proxy. */
  readonly id: number
  readonly listener: ListenerConfig
  readonly client: Endpoint
  /** The proxy in front that told of the client; undefined: the client came itself. */
  readonly front: Endpoint | undefined
}

/** What was moved, in bytes. */
export interface Moved {
  readonly bytesClientToUpstream: number
  readonly bytesUpstreamToClient: number
}

/** The record of a TCP flow while it is written: what is known of the flow, from accept on, and becomes its FlowRecord at the end. */
export class OpenRecord {
  readonly context: ProxyContext
  readonly id: number
  readonly listener: ListenerConfig
  readonly client: Endpoint
  readonly front: Endpoint | undefined
  /** Our end of the client's connection: the original destination itself, unless rules rewrote it. */
  readonly reached: Endpoint
  readonly originalDst: Endpoint
  upstream: Endpoint
  readonly acceptedAt = performance.now()
  dialMs = 0
  /** Why there was no upstream. */
  error: string | undefined
  /** What the policy said, and what it was told of the first bytes. */
  rule: string | undefined
  finding: Finding | undefined
  hostChecked: HostOutcome | undefined
  way: Way = AS_LISTENER
  /** Whose address the server saw, and which, once there was an answer. */
  sourceUsed: SourceUsed | undefined
  sourceAddr: Endpoint | undefined

  constructor(
    { id, listener, client, front, reached, originalDst }: Identity,
    target: Target | undefined,
    context: ProxyContext,
  ) {
    this.context = context
    this.id = id
    this.listener = listener
    this.client = client
    this.front = front
    this.reached = reached
    this.originalDst = originalDst
    this.upstream = listener.dns?.upstreams[0] ?? upstreamOf(originalDst, target) // the app may take another of them
  }

  /** Made when it is asked for: an idle flow does not keep it. */
  get source(): DialSource {
    return dialSource(this.way.source ?? this.listener.source, this.client)
  }

  /** The name for which the client dials, where one is known. */
  get host(): string | undefined {
    return this.finding?.host ?? this.context.nameOf(this.client.address, this.originalDst.address)
  }

  /** `moved`: undefined where nothing could be. */
  toRecord(reason: CloseReason, moved: Moved | undefined, shadow: ShadowDifference | undefined): FlowRecord {
    const refused = reason in REFUSALS
    const durationMs = performance.now() - this.acceptedAt
    return {
      id: this.id,
      listener: this.listener.name,
      protocol: 'tcp',
      client: this.client,
      front: this.front,
      originalDst: this.originalDst,
      name: this.context.nameOf(this.client.address, this.originalDst.address),
      rule: this.rule,
      shadow,
      detected: this.finding?.protocol,
      host: this.finding?.host,
      hostChecked: this.hostChecked,
      upstream: refused ? undefined : this.upstream,
      sourceAddr: this.sourceAddr,
      source: this.sourceUsed ?? (refused ? undefined : this.source.kind),
      bytesClientToUpstream: moved?.bytesClientToUpstream ?? 0,
      bytesUpstreamToClient: moved?.bytesUpstreamToClient ?? 0,
      datagrams: undefined,
      startedAt: Math.round(Date.now() - durationMs),
      dialMs: this.dialMs,
      durationMs,
      reason,
      error: this.error,
      refused,
    }
  }
}
