import { comparisonName, type Row } from './results.ts'
import { median } from './statistics.ts'

/** What is not more than this does not count, however sure it is. */
const TOLERANCE = 1.05
/** How seldom the median of rounds that differ by chance alone lies outside its interval. */
const DOUBT = 0.05

/** Of the ratios of all rounds, ours to theirs. */
export interface Verdict {
  /** More than 1: ours is slower, or dearer. */
  readonly slowdown: number
  /** Between these lies the true median, with 95 % confidence or more. */
  readonly low: number
  readonly high: number
  readonly isSlower: boolean
}

/**
 * Ours is slower when the median of the rounds' ratios is more than 5 % on the wrong side, and its confidence interval does not
 * hold 1. `ours` and `theirs` were measured once in each round.
 * @throws RangeError when the counts differ or are 0.
 */
export function judge({ better }: Pick<Row, 'better'>, ours: readonly number[], theirs: readonly number[]): Verdict {
  if (ours.length !== theirs.length) throw new RangeError(`${ours.length} values against ${theirs.length}`)
  const ratios = ours.map((value, round) => (better === 'less' ? value / theirs[round]! : theirs[round]! / value))
  const slowdown = median(ratios)
  const { low, high } = medianInterval(ratios)
  return { slowdown, low, high, isSlower: slowdown > TOLERANCE && low > 1 }
}

/**
 * The sign test's interval: the k-th smallest and largest value, k as large as leaves the doubt within its bound; where even the
 * extremes do not (fewer than six values), these.
 */
function medianInterval(values: readonly number[]): { readonly low: number; readonly high: number } {
  const sorted = [...values].sort((a, b) => a - b)
  const count = sorted.length
  let outside = 0 // the probability that fewer than k of the values lie on one side of the true median
  let ways = 1
  let k = 0
  while (2 * (outside + ways / 2 ** count) <= DOUBT) {
    outside += ways / 2 ** count
    k++
    ways = (ways * (count - k + 1)) / k
  }
  const at = Math.max(0, k - 1)
  return { low: sorted[at]!, high: sorted[count - 1 - at]! }
}

/** One line for each figure that is compared, and whether any says slower. */
export function verdicts(
  rows: readonly Row[],
  theirs: string,
): { readonly lines: string[]; readonly isSlower: boolean } {
  let isSlower = false
  const lines = rows
    .filter(({ ratios }) => comparisonName('limpid', theirs) in ratios)
    .map((row) => {
      const verdict = judge(row, row.values.limpid!, row.values[theirs]!)
      isSlower ||= verdict.isSlower
      const figures = `${verdict.slowdown.toFixed(3)} (${verdict.low.toFixed(3)}–${verdict.high.toFixed(3)})`
      return `${verdict.isSlower ? 'slower    ' : 'not slower'} ${row.case}, ${row.unit}: ${figures}`
    })
  return { lines, isSlower }
}
