import type { ProgramConfig } from '../apps/define-config.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { ErrorCode } from '../errors.ts'
import type { BoundSockets } from '../proxy/bound-sockets.ts'
import type { FlowRecord } from '../proxy/record.ts'
import type { ProxyStats } from '../proxy/stats.ts'

// What the supervisor and its workers say to each other, over Node's channel between parent and child ('advanced': structured clones).

/** What a client has learnt by DNS, as LearntNames keeps it. */
export interface ToldLesson {
  readonly clientAddress: string
  readonly name: string
  readonly addresses: readonly string[]
  /** Milliseconds from now on: each process has a clock of its own. */
  readonly ttlMs: number
}

export interface ToldError {
  readonly code: ErrorCode | undefined
  readonly message: string
  readonly cure: string | undefined
}

export type ToWorker =
  /** First of all, once. `sockets`: descriptors that the worker has inherited. */
  | {
      readonly kind: 'serve'
      readonly config: ProgramConfig
      readonly sockets: readonly BoundSockets[]
      readonly records: boolean
    }
  | { readonly kind: 'tell-stats' }
  /** Learnt by another worker: the client's flow may come here. */
  | { readonly kind: 'lessons'; readonly lessons: readonly ToldLesson[] }
  /** Read its lists and keep it ready; answered by `policy-answer`. `turn`: counts up. */
  | {
      readonly kind: 'prepare-policy'
      readonly turn: number
      readonly policy: PolicyConfig
      readonly shadow: PolicyConfig | undefined
    }
  /** Decide by what was prepared in that turn; answered by `policy-answer`. */
  | { readonly kind: 'use-policy'; readonly turn: number }
  /** Forget what was prepared in that turn, or still is. */
  | { readonly kind: 'drop-policy'; readonly turn: number }
  | { readonly kind: 'stop-accepting' }
  /** Take no more, let flows end until the deadline, then end. */
  | { readonly kind: 'drain'; readonly deadlineMs: number }
  /** End now; every flow is reset. */
  | { readonly kind: 'close' }

export type FromWorker =
  | { readonly kind: 'listening' }
  /** It cannot serve, and ends. */
  | ({ readonly kind: 'failed' } & ToldError)
  /** `error` undefined: it is ready, or in use. */
  | { readonly kind: 'policy-answer'; readonly turn: number; readonly error: ToldError | undefined }
  | { readonly kind: 'flows'; readonly records: readonly FlowRecord[] }
  | { readonly kind: 'note'; readonly line: string }
  /** The policy leaves that destination to the kernel. */
  | { readonly kind: 'bypass'; readonly destination: string; readonly forMs: number }
  | { readonly kind: 'lessons'; readonly lessons: readonly ToldLesson[] }
  /** Its event loop turns: said at short intervals while it has hooks. `computingAt`: see FlowHooks. */
  | { readonly kind: 'turns'; readonly computingAt: number }
  /** Asked for, every second, and as its last word. */
  | { readonly kind: 'stats'; readonly stats: ProxyStats; readonly recordsDropped: number }
