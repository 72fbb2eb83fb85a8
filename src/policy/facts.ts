import type { Protocol } from '../config/types.ts'
import type { StreamFinding } from '../inspect/stream.ts'
import type { Endpoint } from '../net/address.ts'

/** What the first bytes of a flow say. */
export type Finding = StreamFinding

/** Of first bytes that nobody knows, and of a client that has said none. */
export const UNKNOWN: Finding = { protocol: 'unknown', host: undefined }

/** By which link a flow came; what is not known is undefined. Found out when it is asked. */
export interface FlowLink {
  readonly interface: string | undefined
  /** Of the client, as the neighbour table has it: `02:00:00:00:00:01`. One behind a router has none. */
  readonly mac: string | undefined
}

/** What is known of a flow when it is decided. */
export interface FlowFacts {
  readonly listener: string
  readonly protocol: Protocol
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /** Undefined where no rule asks about it. */
  readonly link?: FlowLink | undefined
  /** Undefined: nobody has looked yet. */
  readonly finding: Finding | undefined
  /** True where the flow carries questions to a DNS listener, and which one is not known: a question that is asked about has a finding. */
  readonly isNamelessQuestion?: true | undefined
  /** Names by which the client knows the destination's address, from DNS; they count where the first bytes have none. */
  readonly learntNames: readonly string[]
  /** Wall clock, for times of day. */
  readonly at: Date
}
