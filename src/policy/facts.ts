import type { Protocol } from '../config/types.ts'
import type { StreamFinding } from '../inspect/stream.ts'
import type { Endpoint } from '../net/address.ts'

/** What the first bytes of a flow say. */
export type Finding = StreamFinding

/** What is known of a flow when it is decided. */
export interface FlowFacts {
  readonly listener: string
  readonly protocol: Protocol
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /** Undefined: nobody has looked yet. */
  readonly finding: Finding | undefined
  /** Names by which the client knows the destination's address, from DNS; they count where the first bytes have none. */
  readonly learntNames: readonly string[]
  /** Wall clock, for times of day. */
  readonly at: Date
}
