/** Of many latencies, those that a half, 99 and 99.9 of a hundred do not exceed, in milliseconds. */
export interface Latency {
  readonly p50Ms: number
  readonly p99Ms: number
  readonly p999Ms: number
}

/** @throws RangeError when there are none. */
export function latencyOf(all: readonly number[]): Latency {
  if (all.length === 0) throw new RangeError('the latency of nothing')
  const sorted = Float64Array.from(all).sort()
  const quantile = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1]!
  return { p50Ms: quantile(0.5), p99Ms: quantile(0.99), p999Ms: quantile(0.999) }
}
