import type { PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Protocol, Source } from './types.ts'

/** What the first bytes of a flow are; `unknown`: none of these, or the client waits for the server to speak first. */
export type DetectedProtocol = 'tls' | 'http1' | 'http2' | 'ssh' | 'socks' | 'quic' | 'unknown'

/** A part of each week, in this host's local time. */
export interface TimeWindow {
  /** As it was written, for people. */
  readonly text: string
  /** 0 is Sunday; empty: every day. The day on which it begins. */
  readonly days: readonly number[]
  /** Minutes since midnight; it ends before `to`, on the next day where that is not later than `from`. */
  readonly from: number
  readonly to: number
}

/** All that is given must be so; of each list one. An empty list means "any". */
export interface PolicyMatch {
  readonly listeners: readonly string[]
  readonly sources: readonly Prefix[]
  readonly destinations: readonly Prefix[]
  readonly ports: readonly PortRange[]
  readonly protocols: readonly Protocol[]
  readonly detected: readonly DetectedProtocol[]
  /** Entries of a list of names: `www.example.org`, `.example.org` (itself and all below), `*.example.org`, `ads*.example.org`. */
  readonly hosts: readonly string[]
  /** Names of lists: the flow's host or its destination is in one of them. */
  readonly lists: readonly string[]
  readonly times: readonly TimeWindow[]
}

/**
 * How a flow is turned away. `reset`: RST, or ICMP port unreachable for UDP; `drop`: the client hears nothing; `forbidden`: an HTTP client
 * gets a page with status 403, others a reset.
 */
export type Rejection = 'reset' | 'drop' | 'forbidden'

export type Decision =
  /** `to`, `source` undefined: as the listener says. Port 0 keeps the original one. */
  | {
      readonly kind: 'forward'
      readonly to: { readonly address: string; readonly port: number } | undefined
      readonly source: Source | undefined
    }
  | { readonly kind: 'reject'; readonly rejection: Rejection }
  /** This flow is forwarded; for `forMs` the kernel forwards what else goes to that destination. */
  | { readonly kind: 'bypass'; readonly forMs: number }

export interface PolicyRule {
  readonly name: string
  readonly match: PolicyMatch
  readonly decision: Decision
}

/** How a flow's first bytes are waited for, when a rule asks about them. */
export interface PeekConfig {
  /** How long a client may be silent; then it waits for the server to speak first. 0: for ever. */
  readonly silenceMs: number
  /** How long it may take from its first byte until what it says is complete. */
  readonly helloMs: number
  /** Where clients wait for the server to speak first: nobody is waited for. */
  readonly serverFirst: readonly PortRange[]
}

export interface PolicyConfig {
  /** Files of names and prefixes, by the name that rules have for them. */
  readonly lists: Readonly<Record<string, string>>
  /** The first that matches decides. */
  readonly rules: readonly PolicyRule[]
  /** Where none does. */
  readonly otherwise: Decision
  readonly peek: PeekConfig
}
