import type { Timeouts } from '../config/types.ts'

const MIN_SWEEP_MS = 25
const MAX_SWEEP_MS = 1_000

/** Those of the listener where the rule says nothing else. */
export function timeoutsOf(listener: { readonly timeouts: Timeouts }, rule: Partial<Timeouts> | undefined): Timeouts {
  return rule === undefined ? listener.timeouts : { ...listener.timeouts, ...rule }
}

/** How often TCP flows are looked at: a quarter of the shortest timeout, so that none is exceeded by more than that. */
export function sweepInterval(all: readonly Partial<Timeouts>[]): number {
  const shortest = Math.min(shortestOf(all, 'idleMs'), shortestOf(all, 'halfCloseMs'))
  return Math.max(MIN_SWEEP_MS, Math.min(MAX_SWEEP_MS, shortest / 4))
}

/** Infinity where all are off. */
export function shortestOf(all: readonly Partial<Timeouts>[], which: keyof Timeouts): number {
  return Math.min(...all.map((one) => one[which] ?? 0).filter((ms) => ms > 0))
}
