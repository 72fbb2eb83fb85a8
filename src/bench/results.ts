import type { Case, Sample } from './cases.ts'
import { compare, median, type Ratio } from './statistics.ts'
import type { SubjectName } from './subjects.ts'

/** One line of the table: a case's rate, or what it costs the proxy. */
export interface Row {
  readonly case: string
  readonly title: string
  readonly unit: string
  /** All rounds, in order. */
  readonly values: Readonly<Partial<Record<SubjectName, readonly number[]>>>
  readonly medians: Readonly<Partial<Record<SubjectName, number>>>
  /** Limpid's figure divided by HAProxy's; for a rate more is better, for a cost less. */
  readonly limpidToHaproxy: Ratio | undefined
  readonly limpidToHaproxySplice: Ratio | undefined
  readonly limpidToForwarding: Ratio | undefined
}

/** The samples of one case: for each subject one of each round. */
export type Samples = ReadonlyMap<SubjectName, readonly Sample[]>

/** Two rows for a case: rate and cost. */
export function rowsOf({ name, title, rateUnit, costUnit }: Case, samples: Samples): Row[] {
  return [
    rowOf(name, title, rateUnit, samples, (sample) => sample.rate),
    rowOf(name, '', costUnit, samples, (sample) => sample.cost),
  ]
}

function rowOf(
  name: string,
  title: string,
  unit: string,
  samples: Samples,
  figure: (sample: Sample) => number | undefined,
): Row {
  const values: Partial<Record<SubjectName, number[]>> = {}
  for (const [subject, taken] of samples) {
    const figures = taken.map(figure).filter((value) => value !== undefined)
    if (figures.length > 0) values[subject] = figures
  }
  const medians = Object.fromEntries(Object.entries(values).map(([subject, figures]) => [subject, median(figures)]))
  const against = (other: number[] | undefined): Ratio | undefined =>
    values.limpid === undefined || other === undefined ? undefined : compare(values.limpid, other)
  return {
    case: name,
    title,
    unit,
    values,
    medians,
    limpidToHaproxy: against(values.haproxy),
    limpidToHaproxySplice: against(values['haproxy-splice']),
    limpidToForwarding: against(values.forwarding),
  }
}

const HEADINGS = ['case', 'unit', 'limpid', 'haproxy', 'haproxy-splice', 'forwarding', '÷ haproxy', '÷ haproxy-splice']

/** The table as Markdown, aligned for reading as it is. */
export function tableOf(rows: readonly Row[]): string {
  const cells = rows.map(({ title, unit, medians, limpidToHaproxy, limpidToHaproxySplice }) => [
    title,
    unit,
    ...[medians.limpid, medians.haproxy, medians['haproxy-splice'], medians.forwarding].map(formatNumber),
    formatRatio(limpidToHaproxy),
    formatRatio(limpidToHaproxySplice),
  ])
  const widths = HEADINGS.map((heading, i) => Math.max(heading.length, ...cells.map((row) => row[i]!.length)))
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`
  const rule = `|${widths.map((width, i) => (i < 2 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`
  return `${[line(HEADINGS), rule, ...cells.map(line)].join('\n')}\n`
}

function formatNumber(value: number | undefined): string {
  if (value === undefined) return '–'
  if (value >= 1000) return Math.round(value).toLocaleString('en-US')
  return value.toPrecision(3)
}

function formatRatio(ratio: Ratio | undefined): string {
  if (ratio === undefined) return '–'
  return `${ratio.ofMedians.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`
}
