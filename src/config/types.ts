import type { Endpoint, Family } from '../net/address.ts'
import type { PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'

/** How traffic reaches a listener. `none`: clients dial the listener itself (a plain forwarder). */
export type Intercept = 'tproxy' | 'none'

/**
 * Whose address the server sees: ours, the client's (a port of the kernel's choice), the client's with its port
 * (falling back to `client` when that port is taken), or a given address.
 */
export type Source = 'proxy' | 'client' | 'client-port' | { readonly address: string }

/** What happens to intercepted traffic while Limpid is down: it passes by (`open`) or is dropped (`closed`). */
export type OnDown = 'open' | 'closed'

/** Which packets a listener takes. An empty list means "any"; `interfaces` are the receiving ones (never `lo`). */
export interface Match {
  readonly interfaces: readonly string[]
  readonly sources: readonly Prefix[]
  readonly destinations: readonly Prefix[]
  readonly ports: readonly PortRange[]
}

/** Durations in milliseconds; 0 switches a timeout off. */
export interface Timeouts {
  readonly connectMs: number
  readonly idleMs: number
  /** How long a flow may stay with one direction closed and no bytes moving. */
  readonly halfCloseMs: number
  /** TCP_USER_TIMEOUT and the whole keepalive span: how long a silent peer is believed alive. */
  readonly deadPeerMs: number
}

export interface Limits {
  /** Flows at once; 0 takes what RLIMIT_NOFILE allows. At the bound no more are accepted: they wait in the backlog. */
  readonly flows: number
  /** Flows at once from one client address; a further one is reset. 0: no bound of its own. */
  readonly flowsPerClient: number
  /** listen(2) backlog; the kernel caps it at net.core.somaxconn. */
  readonly backlog: number
}

export interface ListenerConfig {
  readonly name: string
  readonly intercept: Intercept
  /** One address per family it serves. For `tproxy` usually 127.0.0.1 and ::1; for `none` 0.0.0.0 and ::. */
  readonly listen: readonly Endpoint[]
  readonly families: readonly Family[]
  readonly match: Match
  readonly exclude: Match
  /** Also take packets addressed to this host itself (only sensible with `to`). */
  readonly interceptLocal: boolean
  readonly source: Source
  /** Dial this instead of the original destination. A name is resolved at start; port 0 keeps the original port. */
  readonly to: { readonly host: string; readonly port: number } | undefined
  readonly onDown: OnDown
  /** TCP Fast Open on both sides (RFC 7413). */
  readonly fastOpen: boolean
  readonly timeouts: Timeouts
}

/** fwmarks, nft table and route table that the rules use. All of ours lie within `markMask`. */
export interface RulesConfig {
  readonly install: boolean
  readonly nftTable: string
  readonly routeTable: number
  readonly rulePriority: number
  readonly markMask: number
  readonly interceptMark: number
  readonly bypassMark: number
}

export interface Config {
  readonly listeners: readonly ListenerConfig[]
  readonly limits: Limits
  readonly rules: RulesConfig
}
