import { compare, median, type Ratio } from './statistics.ts'
import { type Better, type Case, type Figure, KERNEL, type Sample, type Suite } from './suite.ts'

/** One line of the table: a case's rate, or what it costs the proxy. */
export interface Row {
  readonly suite: string
  readonly case: string
  readonly title: string
  readonly unit: string
  readonly better: Better
  /** All rounds, in order, by subject. */
  readonly values: Readonly<Record<string, readonly number[]>>
  readonly medians: Readonly<Record<string, number>>
  /** By `limpid ÷ haproxy` and the like. */
  readonly ratios: Readonly<Record<string, Ratio>>
}

/** The samples of one case: for each subject one of each round. */
export type Samples = ReadonlyMap<string, readonly Sample[]>

/** A row for each figure of a case; the title stands in the first. */
export function rowsOf(suite: Suite, { name, title, figures }: Case, samples: Samples): Row[] {
  return figures.map((figure, i) => ({
    suite: suite.name,
    case: name,
    title: i === 0 ? title : '',
    ...rowOf(suite.comparisons, figure, samples),
  }))
}

function rowOf(
  comparisons: Suite['comparisons'],
  figure: Figure,
  samples: Samples,
): Pick<Row, 'unit' | 'better' | 'values' | 'medians' | 'ratios'> {
  const values: Record<string, number[]> = {}
  for (const [subject, taken] of samples) {
    const kernel = subject === KERNEL ? undefined : samples.get(KERNEL)
    const figures = taken
      .map((sample, round) => figure.of(sample, kernel?.[round]))
      .filter((value) => value !== undefined)
    if (figures.length > 0) values[subject] = figures
  }
  const ratios: Record<string, Ratio> = {}
  for (const [ours, theirs] of figure.isCompared ? comparisons : []) {
    const [a, b] = [values[ours], values[theirs]]
    if (a !== undefined && b !== undefined) ratios[comparisonName(ours, theirs)] = compare(a, b)
  }
  const medians = Object.fromEntries(Object.entries(values).map(([subject, figures]) => [subject, median(figures)]))
  return { unit: figure.unit, better: figure.better, values, medians, ratios }
}

export function comparisonName(ours: string, theirs: string): string {
  return `${ours} ÷ ${theirs}`
}

/** The table of a suite as Markdown, aligned for reading as it is; columns for those subjects that were measured. */
export function tableOf({ subjects, comparisons }: Suite, rows: readonly Row[]): string {
  const measured = subjects.map(({ name }) => name).filter((name) => rows.some(({ values }) => name in values))
  const compared = comparisons.filter((pair) => pair.every((name) => measured.includes(name)))
  const names = compared.map(([ours, theirs]) => comparisonName(ours, theirs))
  const headings = ['case', 'unit', ...measured, ...names]
  const cells = rows.map(({ title, unit, medians, ratios }) => [
    title,
    unit,
    ...measured.map((name) => formatNumber(medians[name])),
    ...names.map((name) => formatRatio(ratios[name])),
  ])
  const widths = headings.map((heading, i) => Math.max(heading.length, ...cells.map((row) => row[i]!.length)))
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`
  const rule = `|${widths.map((width, i) => (i < 2 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`
  return `${[line(headings), rule, ...cells.map(line)].join('\n')}\n`
}

function formatNumber(value: number | undefined): string {
  if (value === undefined) return '–'
  if (value === 0) return '0'
  if (value >= 1000) return Math.round(value).toLocaleString('en-US')
  return value.toPrecision(3)
}

/** `1.54 (1.33–1.63)`. */
export function formatRatio(ratio: Ratio | undefined): string {
  if (ratio === undefined) return '–'
  return `${ratio.ofMedians.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`
}
