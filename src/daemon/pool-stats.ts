import type { ProxyStats } from '../proxy/stats.ts'
import type { Worker } from './worker.ts'

export interface WorkerShare {
  readonly pid: number
  readonly flowsOpen: number
  readonly sessionsOpen: number
  /** Since it began. */
  readonly flowsTotal: number
}

/** What is said of the workers, beyond their counters. */
export interface WorkerStats {
  /** In the order of their places; undefined: the next one has not begun. */
  readonly workers: readonly (WorkerShare | undefined)[]
  /** Times that a worker took the place of one that had ended. */
  readonly workerRestarts: number
  /** Flows and sessions that workers had open when they ended, as they told last. */
  readonly flowsLost: number
  /** Workers that were ended since a hook computed without end. */
  readonly hooksEndless: number
}

export type PoolStats = ProxyStats & WorkerStats

/** Undefined: it has not told of itself yet, or there is none. */
export function shareOf(worker: Worker | undefined): WorkerShare | undefined {
  if (worker?.pid === undefined || worker.stats === undefined) return undefined
  const { flowsOpen, sessionsOpen, flowsTotal } = worker.stats
  return { pid: worker.pid, flowsOpen, sessionsOpen, flowsTotal }
}
