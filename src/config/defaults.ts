import type { Limits, Match, RulesConfig, Timeouts, WorkerCount } from './types.ts'

/** Where an intercepting listener waits when nothing else is said. Loopback: nobody outside can dial it. */
export const DEFAULT_LISTEN_PORT = 50_080

export const DEFAULT_TIMEOUTS: Timeouts = {
  connectMs: 10_000, // a SYN and three retries (1 + 2 + 4 s, RFC 6298 §2)
  idleMs: 3_600_000, // longer than the 2 h keepalive of few, shorter than a forgotten connection
  halfCloseMs: 60_000,
  deadPeerMs: 30_000,
  sessionIdleMs: 120_000, // the least that RFC 4787 §4.3 (REQ-5) allows a NAT
  queryIdleMs: 10_000, // a resolver has given up on a server by then (resolv.conf(5): 5 s)
}

export const DEFAULT_LIMITS: Limits = {
  flows: 0,
  flowsPerClient: 0,
  sessions: 0,
  sessionsPerClient: 0,
  backlog: 4096, // net.core.somaxconn since Linux 5.4
}

export const MATCH_ANY: Match = {
  interfaces: [],
  sources: [],
  destinations: [],
  ports: [],
  uids: [],
  cgroups: [],
  fwmarks: [],
}

/** One process is enough for most gateways, and has one table of flows, one cache and one count for all. */
export const DEFAULT_WORKERS: WorkerCount = 1

/** How often the server of a forward is asked for a connection. */
export const DEFAULT_HEALTH_MS = 5_000

/**
 * Two mark bits high up, away from those of Kubernetes (0x4000, 0x8000), Tailscale (0xff0000) and Cilium (0x0f00).
 * The rule's priority is before any that VPN tools use (5000 and up), after `local` (0).
 */
export const DEFAULT_RULES: RulesConfig = {
  install: true,
  backend: 'auto',
  nftTable: 'limpid',
  routeTable: 19_536,
  rulePriority: 195,
  markMask: 0x3000_0000,
  interceptMark: 0x1000_0000,
  bypassMark: 0x2000_0000,
}
