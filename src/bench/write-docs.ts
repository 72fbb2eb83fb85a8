import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { chartOf } from './chart.ts'
import { withBlocks } from './docs-blocks.ts'
import { goalsTable, type Standing } from './goals.ts'
import type { Row } from './results.ts'
import { SUITES } from './suites.ts'

/** docs/performance.md: its prose is people's, its figures are the command's. */
export const DOCUMENT = fileURLToPath(new URL('../../docs/performance.md', import.meta.url))
const CHART = fileURLToPath(new URL('../../docs/bench.svg', import.meta.url))

/** What a run has to tell. */
export interface Figures {
  /** What it ran on, and how. */
  readonly machine: string
  readonly goals: string
  /** By the suite's name. */
  readonly tables: ReadonlyMap<string, string>
}

/** Writes the figures of a whole run into the document, and the chart beside it. */
export function writeDocs(figures: Figures, rows: readonly Row[]): void {
  const written = withBlocks(readFileSync(DOCUMENT, 'utf8'), documentBlocks(figures))
  writeFileSync(CHART, chartOf(rows))
  writeFileSync(DOCUMENT, written)
}

/** Writes the tables of some suites alone, each with what it ran on and how its goals stand. */
export function writeSuites({ machine, tables }: Figures, goals: readonly Standing[]): void {
  const blocks = SUITES.filter(({ name }) => tables.has(name)).map(({ name, cases }) => {
    const own = goals.filter(({ goal }) => cases.some((one) => one.name === goal.case))
    return [name, [machine, goalsTable(own), tables.get(name)].join('\n\n')]
  })
  writeFileSync(DOCUMENT, withBlocks(readFileSync(DOCUMENT, 'utf8'), Object.fromEntries(blocks)))
}

/** By the name of their place. A suite that could not be measured says so. */
export function documentBlocks({ machine, goals, tables }: Figures): Record<string, string> {
  const suites = SUITES.map(({ name }) => [name, tables.get(name) ?? 'Not measured here.'])
  return { machine, goals, ...Object.fromEntries(suites) }
}
