import type { Endpoint, Family } from '../net/address.ts'
import type { NumberRange, PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { PolicyConfig } from './policy-types.ts'
import type { SharingConfig } from './sharing.ts'

/**
 * How traffic reaches a listener. `tproxy`: untouched, by nft's or iptables' TPROXY; `mark`: untouched, by a fwmark and a
 * policy route alone, to a listener on the very port; `redirect`, `dnat`: with its destination rewritten (conntrack keeps the
 * original one) to the receiving interface's own address, or to the listener's; `none`: clients dial the listener itself
 * (a plain forwarder).
 */
export type Intercept = 'tproxy' | 'redirect' | 'dnat' | 'mark' | 'none'

/**
 * The way that traffic takes through this host: `forwarded` between others, `local`: made by processes of this host,
 * `bridged`: frames that cross a bridge of this host.
 */
export type Path = 'forwarded' | 'local' | 'bridged'

export type Protocol = 'tcp' | 'udp'

/** The program that puts the rules into the kernel. `auto`: nft where it works, else iptables. */
export type BackendChoice = 'auto' | 'nft' | 'iptables'

/** Packets whose fwmark, with `mask` applied, is `value`. */
export interface FwmarkMatch {
  readonly value: number
  readonly mask: number
}

/**
 * Whose address the server sees: ours, the client's (a port of the kernel's choice), the client's with its port
 * (falling back to `client` when that port is taken), or a given address.
 */
export type Source = 'proxy' | 'client' | 'client-port' | { readonly address: string }

/** What happens to intercepted traffic while Limpid is down: it passes by (`open`) or is dropped (`closed`). */
export type OnDown = 'open' | 'closed'

/**
 * Which packets a listener takes. An empty list means "any". `interfaces` are the receiving ones (never `lo`); on the path
 * `local` those that the packet would leave by; on the path `bridged` bridges, or ports of bridges.
 */
export interface Match {
  readonly interfaces: readonly string[]
  readonly sources: readonly Prefix[]
  readonly destinations: readonly Prefix[]
  readonly ports: readonly PortRange[]
  /** User ids of the sending process; only known on the path `local`. */
  readonly uids: readonly NumberRange[]
  /** cgroup v2 paths of the sending process, below the root of the hierarchy; only known on the path `local`. */
  readonly cgroups: readonly string[]
  readonly fwmarks: readonly FwmarkMatch[]
}

/** Durations in milliseconds; 0 switches a timeout off. */
export interface Timeouts {
  readonly connectMs: number
  readonly idleMs: number
  /** How long a flow may stay with one direction closed and no bytes moving. */
  readonly halfCloseMs: number
  /** TCP_USER_TIMEOUT and the whole keepalive span: how long a silent peer is believed alive. */
  readonly deadPeerMs: number
  /** How long a UDP session may move no datagram. */
  readonly sessionIdleMs: number
  /** The same for sessions with a port where one question has one answer, such as DNS. */
  readonly queryIdleMs: number
}

export interface Limits {
  /** Flows at once; 0 takes what RLIMIT_NOFILE allows. At the bound no more are accepted: they wait in the backlog. */
  readonly flows: number
  /** Flows at once from one client address; a further one is reset. 0: no bound of its own. */
  readonly flowsPerClient: number
  /** UDP sessions at once; 0 takes what RLIMIT_NOFILE allows. At the bound the one that is idle longest makes room. */
  readonly sessions: number
  /** UDP sessions at once of one client address, within which its own oldest makes room. 0: a quarter of all. */
  readonly sessionsPerClient: number
  /** listen(2) backlog; the kernel caps it at net.core.somaxconn. */
  readonly backlog: number
}

/** What becomes of a DNS query. */
export type DnsDecision = 'forward' | 'answer' | 'nxdomain' | 'refuse' | 'drop'

/** The records of a configured answer. With `cname`, addresses and texts are those of the name that it leads to. */
export interface DnsAnswers {
  readonly a: readonly string[]
  readonly aaaa: readonly string[]
  readonly cname: string | undefined
  readonly txt: readonly string[]
  readonly ttlSeconds: number
}

/** Queries for one of `names`, or at or below one of `suffixes`; neither: for every name. `types` empty: for every type. */
export interface DnsRule {
  readonly name: string
  readonly names: readonly string[]
  readonly suffixes: readonly string[]
  readonly types: readonly number[]
  readonly decision: DnsDecision
  /** With `answer` alone. */
  readonly answers: DnsAnswers | undefined
  /** The servers for `forward`; empty: where other queries go. */
  readonly to: readonly Endpoint[]
}

export interface DnsConfig {
  /** Empty: the server that the client asked, or the listener's `to`. */
  readonly upstreams: readonly Endpoint[]
  /** Undefined: no answer is kept. */
  readonly cache: { readonly entries: number; readonly bytes: number; readonly maxTtlMs: number } | undefined
  /** The first that takes a query decides. */
  readonly rules: readonly DnsRule[]
}

export interface ListenerConfig {
  readonly name: string
  readonly intercept: Intercept
  /** The ways on which traffic is taken; empty with `none`. */
  readonly paths: readonly Path[]
  /**
   * One address per family it serves; for `redirect` perhaps several, which differ in the port alone. For `tproxy` usually
   * 127.0.0.1 and ::1; for `redirect`, `mark` and `none` 0.0.0.0 and ::; for `dnat` addresses of this host.
   */
  readonly listen: readonly Endpoint[]
  readonly families: readonly Family[]
  readonly protocols: readonly Protocol[]
  readonly match: Match
  readonly exclude: Match
  /** Also take packets addressed to this host itself (only sensible with `to`). */
  readonly addressedHere: boolean
  readonly source: Source
  /** Dial this instead of the original destination. A name is resolved at start; port 0 keeps the original port. */
  readonly to: { readonly host: string; readonly port: number } | undefined
  readonly onDown: OnDown
  /** TCP Fast Open on both sides (RFC 7413). */
  readonly fastOpen: boolean
  /** Who tells with a PROXY protocol header, first thing on each TCP connection, for whom it comes; undefined: nobody. */
  readonly acceptProxyProtocol: { readonly from: readonly Prefix[] } | undefined
  readonly timeouts: Timeouts
  /** What it takes is DNS, and handled as such; undefined: it is passed on as it is. */
  readonly dns: DnsConfig | undefined
}

/** Packets to one destination that the kernel passes on to another host (DNAT); no byte of them comes to Limpid. */
export interface ForwardConfig {
  readonly name: string
  readonly protocols: readonly Protocol[]
  /** `destinations` empty: what is addressed to this host. */
  readonly match: Match
  readonly exclude: Match
  /** Port 0 keeps the original one. Its family is the one that is passed on. */
  readonly to: Endpoint
  /** Whose address the server sees: the client's, or this host's (masquerade). */
  readonly source: 'proxy' | 'client'
  /** How often the server is asked for a TCP connection, in milliseconds; 0: never. */
  readonly healthMs: number
}

/** fwmarks, nft table and route table that the rules use. All of ours lie within `markMask`. */
export interface RulesConfig {
  readonly install: boolean
  readonly backend: BackendChoice
  readonly nftTable: string
  readonly routeTable: number
  readonly rulePriority: number
  readonly markMask: number
  readonly interceptMark: number
  readonly bypassMark: number
}

/** Processes that relay: so many, or one for each core of this host. */
export type WorkerCount = number | 'auto'

export interface Config extends SharingConfig {
  readonly listeners: readonly ListenerConfig[]
  readonly forwards: readonly ForwardConfig[]
  /** Destinations that no listener takes: the kernel forwards what goes there, and counts it. More may come at run time. */
  readonly bypass: readonly Prefix[]
  /** Of `limpid run`: with 1 its own process relays, else it supervises others. A program that embeds Limpid has its own process. */
  readonly workers: WorkerCount
  /** What becomes of flows: by address, name, protocol and time. With `policyFrom` every flow goes on until it has been read from there. */
  readonly policy: PolicyConfig
  /** A second policy, which is asked about every flow and never acts: of `limpid run --shadow`, and of programs. */
  readonly shadow?: PolicyConfig | undefined
  /** Whether the kernel is asked for a ring (io_uring(7)), by which many system calls are one. Where it has none for us, nothing else changes. */
  readonly ioUring: boolean
  readonly limits: Limits
  readonly rules: RulesConfig
}
