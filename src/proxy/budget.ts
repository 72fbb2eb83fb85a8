import type { Limits } from '../config/types.ts'

/** Kept free for the rules (starting `nft` needs pipes), logs, listeners, name lookups and what hooks open. */
const RESERVED_DESCRIPTORS = 64
const DESCRIPTORS_PER_FLOW = 2 // client and upstream
const DESCRIPTORS_PER_PIPE = 2
/** Enough for as many bulk flows at once as fit fs.pipe-user-pages-soft (16,384 pages) at PIPE_BYTES each. */
const MAX_PIPES = 256
const PIPES_SHARE = 16 // one sixteenth of the descriptors at the most

const MAX_SESSIONS = 65_536 // each about 4 kB of memory, most of it the kernel's
const CLIENT_SHARE = 4 // of all sessions, one client may have a quarter
const MAX_REPLY_SOCKETS = 4_096 // beyond it answers go by a raw socket
const REPLY_SOCKETS_SHARE = 4 // sessions often have their server in common

/** The size of a pipe: larger ones move no more per call, since the socket buffers bound that. */
export const PIPE_BYTES = 262_144

/** Admission stops while this much waits in our memory for slow receivers. */
export const MAX_WAITING_BYTES = 268_435_456 // 256 MiB: 64 KiB for each direction of 2,048 stalled flows

export interface Budget {
  /** Flows at once. */
  readonly flows: number
  readonly pipes: number
  /** UDP sessions at once. */
  readonly sessions: number
  readonly sessionsPerClient: number
  /** Sockets that answers of UDP sessions leave by. */
  readonly replySockets: number
}

/** What a config has listeners for. */
export interface Served {
  readonly tcp: boolean
  readonly udp: boolean
}

/**
 * Divides `descriptors` (RLIMIT_NOFILE) between TCP flows with their pipes, and UDP sessions with their reply sockets: half to each
 * where both are served. The configured bounds hold where they are lower.
 */
export function planBudget(limits: Limits, descriptors: number, served: Served = { tcp: true, udp: false }): Budget {
  const free = Math.max(DESCRIPTORS_PER_FLOW, descriptors - RESERVED_DESCRIPTORS)
  const forTcp = served.udp ? (served.tcp ? Math.floor(free / 2) : 0) : free
  const pipes = Math.min(MAX_PIPES, Math.floor(forTcp / PIPES_SHARE / DESCRIPTORS_PER_PIPE))
  const affordable = Math.max(1, Math.floor((forTcp - pipes * DESCRIPTORS_PER_PIPE) / DESCRIPTORS_PER_FLOW))
  const forUdp = served.udp ? free - forTcp : 0
  const replySockets = Math.min(MAX_REPLY_SOCKETS, Math.floor(forUdp / REPLY_SOCKETS_SHARE))
  const sessions = bounded(limits.sessions, Math.min(MAX_SESSIONS, Math.max(1, forUdp - replySockets)))
  return {
    flows: bounded(limits.flows, affordable),
    pipes,
    sessions,
    sessionsPerClient: bounded(limits.sessionsPerClient, Math.max(1, Math.floor(sessions / CLIENT_SHARE)), sessions),
    replySockets,
  }
}

/** What was asked for, or else `otherwise`; never more than `most`. */
function bounded(wanted: number, otherwise: number, most = otherwise): number {
  return wanted > 0 ? Math.min(wanted, most) : otherwise
}
