import type { Limits } from '../config/types.ts'

/** Kept free for the rules (starting `nft` needs pipes), logs, listeners, name lookups and what hooks open. */
const RESERVED_DESCRIPTORS = 64
const DESCRIPTORS_PER_FLOW = 2 // client and upstream
const DESCRIPTORS_PER_PIPE = 2
/** Enough for as many bulk flows at once as fit fs.pipe-user-pages-soft (16,384 pages) at PIPE_BYTES each. */
const MAX_PIPES = 256
const PIPES_SHARE = 16 // one sixteenth of the descriptors at the most

/** The size of a pipe: larger ones move no more per call, since the socket buffers bound that. */
export const PIPE_BYTES = 262_144

/** Admission stops while this much waits in our memory for slow receivers. */
export const MAX_WAITING_BYTES = 268_435_456 // 256 MiB: 64 KiB for each direction of 2,048 stalled flows

export interface Budget {
  /** Flows at once. */
  readonly flows: number
  readonly pipes: number
}

/** Divides `descriptors` (RLIMIT_NOFILE) between flows and pipes. The configured bound holds where it is lower. */
export function planBudget(limits: Limits, descriptors: number): Budget {
  const free = Math.max(DESCRIPTORS_PER_FLOW, descriptors - RESERVED_DESCRIPTORS)
  const pipes = Math.min(MAX_PIPES, Math.floor(free / PIPES_SHARE / DESCRIPTORS_PER_PIPE))
  const affordable = Math.max(1, Math.floor((free - pipes * DESCRIPTORS_PER_PIPE) / DESCRIPTORS_PER_FLOW))
  return { flows: limits.flows > 0 ? Math.min(limits.flows, affordable) : affordable, pipes }
}
