import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { progressOn } from '../lab/progress.ts'
import { goalsTable, standings } from './goals.ts'
import { machineFacts, revision } from './machine.ts'
import { type Measuring, measureSuite, withoutMissing } from './measure.ts'
import { type Options, readOptions, USAGE } from './options.ts'
import { type Busy, limitNotes, machineLine, type Results } from './report.ts'
import { type Row, rowsOf, tableOf } from './results.ts'
import { verdicts } from './slower.ts'
import type { Suite } from './suite.ts'
import { writeDocs, writeSuites } from './write-docs.ts'

const RESULTS = fileURLToPath(new URL('../../bench/results', import.meta.url))
const PROFILER = new URL('./profiler.js', import.meta.url).href
const SLOWER = 1

/**
 * Measures, prints, saves. Ends the process with 0; with 1 when a load failed, a byte was wrong, or this build is slower than
 * the one that it is held against.
 */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    const options = readOptions(argv)
    if (options === undefined) {
      process.stdout.write(USAGE)
      return 0
    }
    await enterNamespaces()
    return await bench(options)
  } catch (error) {
    process.stderr.write(`limpid: ${error instanceof LimpidError ? error.toString() : (error as Error).stack}\n`)
    return error instanceof LimpidError ? error.exitCode : 1
  }
}

async function bench(options: Options): Promise<number> {
  const { suites, extent, json } = options
  const progress = progressOn(process.stderr, json)
  const notes: string[] = []
  const env = options.profile === undefined ? {} : profiling(options.profile)
  const tables = new Map<string, string>()
  const rows: Row[] = []
  const busy: Busy = {}
  for (const suite of suites) {
    const own = await rowsOfSuite(suite, { extent, env, progress, notes }, busy)
    rows.push(...own)
    if (own.length > 0) tables.set(suite.name, tableOf(suite, own))
    notes.push(...limitNotes(suite, own))
  }
  progress.clear()
  const facts = { revision: await revision(), machine: await machineFacts() }
  const goals = options.revision === undefined ? standings(rows) : []
  const results: Results = { at: new Date().toISOString(), ...facts, ...extent, notes, rows, goals, busy }
  const verdict = options.revision === undefined ? undefined : verdicts(rows, `limpid@${options.revision}`)
  const judged = verdict?.lines.map((line) => `${line}\n`).join('') ?? ''
  const found = [...tables.values(), goalsTable(goals), judged].filter((part) => part !== '')
  const text = [machineLine(results), '', ...found, ...notes].join('\n')
  process.stdout.write(json ? `${JSON.stringify(results)}\n` : `${text}\n`)
  if (options.save) save(results, options.revision, json)
  const figures = { machine: machineLine(results), goals: goalsTable(goals), tables }
  if (options.writeDocs === 'all') writeDocs(figures, rows)
  else if (options.writeDocs === 'suites') writeSuites(figures, goals)
  return verdict?.isSlower ? SLOWER : 0
}

/** Measures what can be measured of a suite. Adds to `busy`. */
async function rowsOfSuite(suite: Suite, measuring: Measuring, busy: Busy): Promise<Row[]> {
  const measurable = await withoutMissing(suite, measuring.notes)
  const { comparisons, subjects } = measurable
  const isCompared =
    comparisons.length === 0 || comparisons.some(([ours]) => subjects.some(({ name }) => name === ours))
  if (!isCompared) return [] // what is left has nothing to be compared with
  const taken = await measureSuite(measurable, measuring)
  for (const [{ name }, samples] of taken) {
    busy[name] = Object.fromEntries([...samples].map(([who, all]) => [who, all.map((sample) => sample.busy)]))
  }
  return [...taken].flatMap(([wanted, samples]) => rowsOf(suite, wanted, samples))
}

function save(results: Results, against: string | undefined, isQuiet: boolean): void {
  mkdirSync(RESULTS, { recursive: true })
  const other = against === undefined ? '' : `-against-${against.replaceAll(/[^\w.-]/g, '-')}`
  const file = `${results.at.slice(0, 10)}-${results.revision}${other}.json`
  writeFileSync(`${RESULTS}/${file}`, `${JSON.stringify(results, undefined, 2)}\n`)
  if (!isQuiet) process.stdout.write(`\nsaved as bench/results/${file}\n`)
}

/** Makes a Node process write its CPU profile into `folder`. */
function profiling(folder: string): Record<string, string> {
  mkdirSync(folder, { recursive: true })
  return { LIMPID_BENCH_PROFILE: resolve(folder), NODE_OPTIONS: `--import=${PROFILER}` }
}

process.exitCode = await main(process.argv.slice(2))
