import { comparisonName, formatRatio, type Row } from './results.ts'
import { median, type Ratio } from './statistics.ts'

/** What a ratio has to be, or, without `theirs`, a figure itself. */
export interface Goal {
  readonly case: string
  readonly unit: string
  readonly ours: string
  readonly theirs: string | undefined
  /** The least that the ratio of medians may be, or the most. */
  readonly bound: { readonly least: number } | { readonly most: number }
}

const ONE = { ours: 'limpid', theirs: 'haproxy' } as const
const TWO = { ours: 'limpid-2', theirs: 'haproxy-2' } as const
const ITSELF = { ours: 'limpid', theirs: undefined } as const
const HOOK = { ours: 'limpid-hook', theirs: 'limpid' } as const
const UNAFFECTED = { least: 0.95 } as const // rounds differ by as much
const BYPASS = { ours: 'limpid-bypass', theirs: 'forwarding' } as const
const BULK = { least: 1.4 } as const
const CPU = { most: 0.45 } as const
const KEPT = { least: 1.1 } as const
const NEW = { least: 1.4 } as const
const NEAR = { least: 0.97 } as const

/** One worker against one thread of HAProxy, two against two, and what is bypassed against plain forwarding. */
export const GOALS: readonly Goal[] = [
  ...['bulk-1', 'bulk-4', 'bulk-64'].flatMap((name) => [
    { case: name, unit: 'Gbit/s', ...ONE, bound: BULK },
    { case: name, unit: 'CPU s/GB', ...ONE, bound: CPU },
  ]),
  { case: 'keep-alive', unit: 'requests/s', ...ONE, bound: KEPT },
  { case: 'keep-alive-1000', unit: 'requests/s', ...ONE, bound: KEPT },
  { case: 'connections', unit: 'connections/s', ...ONE, bound: NEW },
  { case: 'latency', unit: 'ms p99 added', ...ONE, bound: { most: 1 } },
  { case: 'idle-memory', unit: 'bytes/flow', ...ONE, bound: { most: 0.5 } },
  { case: 'sni', unit: 'connections/s', ...ONE, bound: { least: 1 } },
  { case: 'sni', unit: 'connections/s', ours: 'limpid', theirs: 'nginx', bound: { least: 1 } },
  ...['rules', 'rules-names', 'rules-prefixes'].map((name) => ({
    case: name,
    unit: 'CPU µs/answer',
    ...ITSELF,
    bound: { most: 2 },
  })),
  { case: 'hook-bulk', unit: 'Gbit/s', ...HOOK, bound: UNAFFECTED },
  { case: 'hook-requests', unit: 'messages/s', ...HOOK, bound: UNAFFECTED },
  { case: 'workers-bulk-64', unit: 'Gbit/s', ...TWO, bound: BULK },
  { case: 'workers-bulk-64', unit: 'CPU s/GB', ...TWO, bound: CPU },
  { case: 'workers-keep-alive', unit: 'requests/s', ...TWO, bound: KEPT },
  { case: 'workers-keep-alive-1000', unit: 'requests/s', ...TWO, bound: KEPT },
  { case: 'workers-connections', unit: 'connections/s', ...TWO, bound: NEW },
  { case: 'bypass-bulk-1', unit: 'Gbit/s', ...BYPASS, bound: NEAR },
  { case: 'bypass-connections', unit: 'connections/s', ...BYPASS, bound: NEAR },
]

/** How a goal stands; without a ratio it was not measured. */
export interface Standing {
  readonly goal: Goal
  readonly ratio: Ratio | undefined
  readonly isMet: boolean
}

/** How the goals of the measured cases stand. */
export function standings(rows: readonly Row[], goals: readonly Goal[] = GOALS): Standing[] {
  const measured = new Set(rows.map((row) => row.case))
  return goals
    .filter((goal) => measured.has(goal.case))
    .map((goal) => {
      const row = rows.find((candidate) => candidate.case === goal.case && candidate.unit === goal.unit)
      const ratio = row && measuredOf(row, goal)
      return { goal, ratio, isMet: ratio !== undefined && isWithin(ratio.ofMedians, goal.bound) }
    })
}

function measuredOf({ values, ratios }: Row, { ours, theirs }: Goal): Ratio | undefined {
  if (theirs !== undefined) return ratios[comparisonName(ours, theirs)]
  const own = values[ours]
  return own && { ofMedians: median(own), min: Math.min(...own), max: Math.max(...own) }
}

function isWithin(value: number, bound: Goal['bound']): boolean {
  return 'least' in bound ? value >= bound.least : value <= bound.most
}

export function formatBound(bound: Goal['bound']): string {
  return 'least' in bound ? `≥ ${bound.least.toFixed(2)}` : `≤ ${bound.most.toFixed(2)}`
}

/** A table of the goals as Markdown; empty when none was measured. */
export function goalsTable(all: readonly Standing[]): string {
  if (all.length === 0) return ''
  const lines = all.map(({ goal, ratio, isMet }) => {
    const verdict = ratio === undefined ? 'not measured' : isMet ? 'met' : 'missed'
    const compared = goal.theirs === undefined ? goal.ours : comparisonName(goal.ours, goal.theirs)
    return `| ${goal.case} | ${goal.unit} | ${compared} | ${formatBound(goal.bound)} | ${formatRatio(ratio)} | ${verdict} |`
  })
  return ['| case | unit | ratio | goal | measured | |', '|---|---|---|---:|---:|---|', ...lines, ''].join('\n')
}
