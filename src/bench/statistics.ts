/** The middle value; of an even count the mean of the two in the middle. @throws RangeError when there is none. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('the median of nothing')
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A ratio of medians, and the smallest and largest ratio that one round gave. */
export interface Ratio {
  readonly ofMedians: number
  readonly min: number
  readonly max: number
}

/**
 * How `a` compares with `b`, both measured once in each round: pairs of one round share what the machine did besides.
 * @throws RangeError when the counts differ or are 0.
 */
export function compare(a: readonly number[], b: readonly number[]): Ratio {
  if (a.length !== b.length) throw new RangeError(`${a.length} values against ${b.length}`)
  const ratios = a.map((value, round) => value / b[round]!)
  return { ofMedians: median(a) / median(b), min: Math.min(...ratios), max: Math.max(...ratios) }
}
