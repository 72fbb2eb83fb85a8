import type { DetectedProtocol } from '../config/policy-types.ts'
import type { Protocol } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { ShadowDifference } from '../policy/shadow.ts'
import type { RelayReason } from '../relay/reasons.ts'
import type { HostOutcome } from './host-check.ts'

/** Why a flow was turned away before anything was dialled. */
export type RefusalReason =
  /** It was dialled to one of our own listeners, or to an address of this host: relaying it would dial ourselves. */
  | 'loop'
  /** Its source may not be lent: ours, loopback, multicast, the server's own, or not among the listener's sources. */
  | 'source'
  /** This client has as many flows as it may have. */
  | 'client-limit'

/** Why the policy turned a flow away before anything was dialled. */
export type PolicyReason =
  /** A rule of the policy turned it away. */
  | 'policy'
  /** A rule's limit of new flows was reached. */
  | 'policy-limit'
  /** A rule asked about its first bytes, and they break the rules of their protocol. */
  | 'malformed'
  /** The same, and they were not complete in time. */
  | 'hello-timeout'
  /** The hook that was asked about it threw, was late, or could not be asked. */
  | 'hook-failed'
  /** The host that it names does not have the address that its client has dialled, or nobody says so; `hostChecked` tells which. */
  | 'host-mismatch'

/** Why the upstream could not be opened. The client gets a reset. */
export type DialReason =
  | 'dial-refused'
  | 'dial-timeout'
  | 'dial-unreachable'
  /** No local address, port or descriptor to dial with. */
  | 'dial-failed'
  /** The upstream answered, and reset at once. */
  | 'upstream-reset'
  /** The client was gone before the upstream answered. */
  | 'client-gone'

/** Why the proxy that a rule sends a flow to did not bring it on. The client gets a reset; `error` has what the proxy said. */
export type ViaReason =
  /** It understood, and would not: its rules, a wrong password, or a server that it cannot reach. */
  | 'via-refused'
  /** It closed, was not heard in time, or what it said is none of its protocol. */
  | 'via-failed'

/** Why a UDP session ended. */
export type SessionReason =
  /** No datagram for as long as a session may be idle: its natural end. */
  | 'session-idle'
  /** It was idle longest when there was no room for another. */
  | 'evicted'
  /** The client's host says that nobody waits for the answers any more (ICMP port unreachable). */
  | 'client-gone'

/**
 * The closed list of reasons with which a flow ends; exactly one is given. `proxy-header`: a proxy in front did not say in time with a header for whom it comes,
 * or what cannot be. `app-failed`: an app that served it threw.
 */
export type CloseReason =
  | RefusalReason
  | PolicyReason
  | DialReason
  | ViaReason
  | RelayReason
  | SessionReason
  | 'proxy-header'
  | 'app-failed'

export const REFUSALS: Readonly<Record<RefusalReason | PolicyReason | 'proxy-header', true>> = {
  loop: true,
  source: true,
  'client-limit': true,
  'proxy-header': true,
  policy: true,
  'policy-limit': true,
  malformed: true,
  'hello-timeout': true,
  'hook-failed': true,
  'host-mismatch': true,
}

/** Whose address the server sees. `client-port` that fell back is `client`. */
export type SourceUsed = 'proxy' | 'client' | 'client-port' | 'address'

/** One flow, as it is told when it has ended. Addresses are IP literals; durations are monotonic milliseconds. */
export interface FlowRecord {
  /** Counts up from 1 in each proxy. */
  readonly id: number
  readonly listener: string
  readonly protocol: Protocol
  readonly client: Endpoint
  /** The proxy in front that told of the client; undefined: the client came itself. */
  readonly front: Endpoint | undefined
  readonly originalDst: Endpoint
  /** The name by which the client had learnt the original destination, where Limpid's DNS told it. */
  readonly name: string | undefined
  /** The policy's rule that decided, or `onFlow` where that hook did; undefined where none matched, or there is no policy. */
  readonly rule: string | undefined
  /** What the shadow policy said, where that was another decision. */
  readonly shadow: ShadowDifference | undefined
  /** What the first bytes are, where a rule asked; undefined: nobody has looked. */
  readonly detected: DetectedProtocol | undefined
  /** Whom the first bytes were for: SNI or Host, where a rule asked. */
  readonly host: string | undefined
  /** Whether that host has the address of the original destination; undefined where that was not asked. */
  readonly hostChecked: HostOutcome | undefined
  /** What was dialled, the proxy of a flow that went via one; undefined for a flow that was refused before. */
  readonly upstream: Endpoint | undefined
  /** Our end towards the upstream, as the server sees it; undefined when there was no answer, or nobody listened for records then. */
  readonly sourceAddr: Endpoint | undefined
  /** Whose address was dialled with; undefined for a flow that was refused before. */
  readonly source: SourceUsed | undefined
  readonly bytesClientToUpstream: number
  readonly bytesUpstreamToClient: number
  /** Of a UDP session; undefined for TCP. `dropped`: lost on the way, in both directions. */
  readonly datagrams:
    | { readonly clientToUpstream: number; readonly upstreamToClient: number; readonly dropped: number }
    | undefined
  /** Wall clock, milliseconds since 1970; for people, never for arithmetic. */
  readonly startedAt: number
  /** From accept to the upstream's answer. */
  readonly dialMs: number
  /** From accept to the end. */
  readonly durationMs: number
  readonly reason: CloseReason
  /** The errno's name when the dial failed: `ECONNREFUSED`, `EADDRNOTAVAIL` …; or what a proxy that it was to go via said. */
  readonly error: string | undefined
  readonly refused: boolean
}
