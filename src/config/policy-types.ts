import type { Endpoint } from '../net/address.ts'
import type { PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Protocol, Source, Timeouts } from './types.ts'

/** What the first bytes of a flow are; `unknown`: none of these, or the client waits for the server to speak first. */
export type DetectedProtocol = 'tls' | 'http1' | 'http2' | 'ssh' | 'socks' | 'quic' | 'dns' | 'unknown'

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
  /** Names of interfaces by which clients come: `eth0`, or `br*`. */
  readonly interfaces: readonly string[]
  /** Of clients on a link of ours: `02:00:00:00:00:01`. */
  readonly macs: readonly string[]
  readonly detected: readonly DetectedProtocol[]
  /** Entries of a list of names: `www.example.org`, `.example.org` (itself and all below), `*.example.org`, `ads*.example.org`. */
  readonly hosts: readonly string[]
  /** Names of lists: the flow's host or its destination is in one of them. */
  readonly lists: readonly string[]
  readonly times: readonly TimeWindow[]
}

/**
 * How a flow is turned away. `reset`: RST, or ICMP port unreachable for UDP; `drop`: the client hears nothing; `forbidden`: an HTTP client
 * gets a page with status 403, others a reset. `unreachable`: ICMP says that it is prohibited, before the reset of TCP. `refused`,
 * `nxdomain`: a DNS question gets that answer, others a reset.
 */
export type Rejection = 'reset' | 'drop' | 'forbidden' | 'unreachable' | 'refused' | 'nxdomain'

/** A user and password of a proxy, of 255 bytes at the most each (RFC 1929 §2). */
export interface Credentials {
  readonly user: string
  readonly password: string
}

/** What is said on the upstream connection before the flow's own bytes. */
export type Via =
  /** A PROXY protocol header to the upstream itself, so that it knows the client and the original destination. */
  | { readonly kind: 'proxy-protocol'; readonly version: 1 | 2 }
  /** The connection goes to this proxy, which is asked for the destination; with `names` by its name, where one is known. */
  | {
      readonly kind: 'socks5' | 'connect'
      readonly proxy: Endpoint
      readonly credentials: Credentials | undefined
      readonly names: boolean
    }

/** How one server of a pool is chosen: in turn, the one with the fewest flows, or by a hash of the client's address. */
export type Balance = 'round-robin' | 'least-flows' | 'client-hash'

export interface PoolConfig {
  /** Port 0 keeps the original one. */
  readonly servers: readonly Endpoint[]
  readonly balance: Balance
  /** How often each server is asked for a TCP connection; 0: never. */
  readonly healthMs: number
}

/** Of what a rule lets through, how much. One or both of `newFlows` and `bytes`. */
export interface RateLimit {
  /** Whether each client may have that, or all together. An IPv6 client is its /64. */
  readonly per: 'client' | 'rule'
  readonly newFlows: FlowRate | undefined
  readonly bytes: ByteRate | undefined
}

export interface FlowRate {
  /** A flow or session each so many milliseconds. */
  readonly intervalMs: number
  /** How many at once, after a time without any. */
  readonly burst: number
}

/** Of payload, in each direction. */
export interface ByteRate {
  readonly perSecond: number
  /** How many bytes at once, after a time without any. */
  readonly burst: number
}

/** How the upstream of a flow that goes on is opened. Undefined: as the listener says. */
export interface Onward {
  /** The destination, where port 0 keeps the original one; or one server of a pool. */
  readonly to: Endpoint | { readonly pool: string } | undefined
  readonly source: Source | undefined
  /** Bits of the fwmark of our packets towards the upstream, none of them Limpid's own. */
  readonly mark?: number | undefined
  /** Of our packets towards the upstream: 0–63 (RFC 2474 §3). */
  readonly dscp?: number | undefined
  /** Flows beyond it are turned away, bytes have to wait, datagrams are dropped. */
  readonly limit?: RateLimit | undefined
  /** In place of the listener's. */
  readonly timeouts?: Partial<Timeouts> | undefined
}

export type Decision =
  | (Onward & { readonly kind: 'forward' })
  /** TCP alone: a UDP session that it decides is turned away. */
  | (Onward & { readonly kind: 'via'; readonly via: Via })
  /** TCP alone, too: the app of that name has the client's stream, and opens what it needs. */
  | (Onward & { readonly kind: 'handle'; readonly app: string })
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

/**
 * Whether the host that a flow names must have the address that its client has dialled. `log`: what differs is told, and goes on; `enforce`:
 * it is turned away, and so is what cannot be found out.
 */
export type HostCheckMode = 'off' | 'log' | 'enforce'

export interface PolicyConfig {
  /** Files of names and prefixes, by the name that rules have for them. */
  readonly lists: Readonly<Record<string, string>>
  /** By the name that rules have for them. */
  readonly pools: Readonly<Record<string, PoolConfig>>
  /** The first that matches decides. */
  readonly rules: readonly PolicyRule[]
  /** Where none does. */
  readonly otherwise: Decision
  readonly hostCheck: HostCheckMode
  readonly peek: PeekConfig
}

/** A flow about which somebody asks what becomes of it. */
export interface AskedFlow {
  readonly client: string
  /** Port 0: none was given. */
  readonly originalDst: Endpoint
  readonly protocol: Protocol
  readonly listener: string | undefined
  /** By which it comes in. */
  readonly interface: string | undefined
  /** Lower case, with colons; undefined: none is known. */
  readonly mac: string | undefined
  /** Canonical. */
  readonly host: string | undefined
  readonly detected: DetectedProtocol | undefined
  /** Names by which the client knows the destination, from DNS. */
  readonly learntNames: readonly string[]
  readonly at: Date
}
