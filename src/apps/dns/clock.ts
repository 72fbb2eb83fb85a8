const COARSE_MS = 100

/**
 * Monotonic milliseconds, at most COARSE_MS and a turn of the event loop behind: TTLs count seconds, and asking the clock costs
 * as much as looking up an answer. Its timer runs only after it was asked, and keeps no process alive.
 */
export function coarseClock(): () => number {
  let nowMs = 0
  let isFresh = false
  return () => {
    if (!isFresh) {
      nowMs = performance.now()
      isFresh = true
      setTimeout(() => {
        isFresh = false
      }, COARSE_MS).unref()
    }
    return nowMs
  }
}
