import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** What one call takes: milliseconds of wall clock, and bytes of the heap and of buffers that it allocates. */
export interface Cost {
  readonly ms: number
  readonly bytes: number
}

/** Longer than this is a hang: a thousand times what a flow's first bytes usually take. */
export const HANG_MS = 1
/** Times that what took long, or much, is done anew: the machine may have been busy, the collector or the compiler at work. */
const AGAIN = 20

/** A collection within the call makes its bytes NaN: nobody knows. */
export function costOf(call: () => unknown): Cost {
  const before = getHeapStatistics()
  const startedAt = performance.now()
  call()
  const ms = performance.now() - startedAt
  const after = getHeapStatistics()
  const heap = after.used_heap_size - before.used_heap_size
  const buffers = after.external_memory - before.external_memory
  return { ms, bytes: heap < 0 || buffers < 0 ? Number.NaN : heap + buffers }
}

/** Of `first` and of many times more, the least: what repeats is the call's own, the rest is noise. Infinite bytes: always collected. */
export function leastCost(call: () => unknown, first: Cost): Cost {
  let { ms } = first
  let bytes = Number.isNaN(first.bytes) ? Number.POSITIVE_INFINITY : first.bytes
  for (let i = 0; i < AGAIN; i++) {
    const again = costOf(call)
    ms = Math.min(ms, again.ms)
    if (again.bytes < bytes) bytes = again.bytes
  }
  return { ms, bytes }
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes that are still held when all that can be collected is. */
export function heldBytes(): number {
  collect()
  const { used_heap_size: heap, external_memory: buffers } = getHeapStatistics()
  return heap + buffers
}
