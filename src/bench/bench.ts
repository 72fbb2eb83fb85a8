import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LimpidError } from '../errors.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { type Progress, progressOn } from '../lab/progress.ts'
import { isInstalled } from '../sys/program.ts'
import { machineFacts, revision } from './machine.ts'
import { type Row, rowsOf, tableOf } from './results.ts'
import type { Case, Sample, Subject, Suite } from './suite.ts'
import { SUITES } from './suites.ts'

const RESULTS = fileURLToPath(new URL('../../bench/results', import.meta.url))
const PROFILER = new URL('./profiler.js', import.meta.url).href
const WARM_UP_SECONDS = 2 // until the compiler has nothing left to do

interface Extent {
  readonly rounds: number
  readonly seconds: number
}

const NAMES = SUITES.flatMap(({ name, cases }) => [name, ...cases.map((wanted) => wanted.name)])
const FULL: Extent = { rounds: 5, seconds: 2 }
const QUICK: Extent = { rounds: 2, seconds: 1 }

const USAGE = `usage: npm run bench -- [--quick] [--json] [--case NAME]… [--rounds N] [--seconds N] [--profile FOLDER] [--no-save]

  --quick            ${QUICK.rounds} rounds of ${QUICK.seconds} s instead of ${FULL.rounds} of ${FULL.seconds} s
  --json             the results as JSON instead of a table
  --case NAME        only ${NAMES.join(', ')}
  --profile FOLDER   write Limpid's CPU profile there (figures suffer)
  --no-save          no file in bench/results
`

/** Measures, prints, saves. Ends the process with 0, or 1 when a load failed or a byte was wrong. */
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

interface Options {
  /** With the wanted cases alone. */
  readonly suites: readonly Suite[]
  readonly extent: Extent
  readonly json: boolean
  readonly save: boolean
  readonly profile: string | undefined
}

/** undefined: help is wanted. @throws LimpidError LIMPID_USAGE. */
function readOptions(argv: readonly string[]): Options | undefined {
  const { values } = parsed(argv)
  if (values.help) return undefined
  const base = values.quick ? QUICK : FULL
  return {
    suites: wantedSuites(values.case),
    extent: {
      rounds: count('--rounds', values.rounds, base.rounds),
      seconds: count('--seconds', values.seconds, base.seconds),
    },
    json: values.json ?? false,
    save: !values['no-save'],
    profile: values.profile,
  }
}

/** `names`: of suites, or of cases; undefined: all. */
function wantedSuites(names: readonly string[] | undefined): Suite[] {
  const unknown = names?.find((name) => !NAMES.includes(name))
  if (unknown !== undefined) {
    throw new LimpidError('LIMPID_USAGE', `no such case: ${unknown}`, { cure: `take one of ${NAMES.join(', ')}` })
  }
  return SUITES.map((suite) => {
    const isWanted = (name: string): boolean => names === undefined || names.includes(name)
    return { ...suite, cases: suite.cases.filter(({ name }) => isWanted(suite.name) || isWanted(name)) }
  }).filter(({ cases }) => cases.length > 0)
}

function parsed(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        help: { type: 'boolean', short: 'h' },
        quick: { type: 'boolean' },
        json: { type: 'boolean' },
        'no-save': { type: 'boolean' },
        case: { type: 'string', multiple: true },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        profile: { type: 'string' },
      },
    })
  } catch (error) {
    throw new LimpidError('LIMPID_USAGE', (error as Error).message, { cure: 'see npm run bench -- --help' })
  }
}

const MAX_COUNT = 15 // a load must end before the lab's patience with a program (20 s)

function count(flag: string, text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= MAX_COUNT) return value
  throw new LimpidError('LIMPID_USAGE', `${flag} ${text}: not a whole number from 1 to ${MAX_COUNT}`)
}

async function bench({ suites, extent, json, save, profile }: Options): Promise<number> {
  const progress = progressOn(process.stderr, json)
  const env = profile === undefined ? {} : profiling(profile)
  const notes: string[] = []
  const tables: string[] = []
  const rows: Row[] = []
  const busy: Record<string, Record<string, (number | undefined)[]>> = {}
  for (const suite of suites) {
    const measurable = await withoutMissing(suite, notes)
    const taken = await measureSuite(measurable, extent, env, progress)
    const own = [...taken].flatMap(([wanted, samples]) => rowsOf(suite, wanted, samples))
    for (const [{ name }, samples] of taken) {
      busy[name] = Object.fromEntries([...samples].map(([who, all]) => [who, all.map((sample) => sample.busy)]))
    }
    rows.push(...own)
    tables.push(tableOf(suite, own))
  }
  progress.clear()
  const at = new Date().toISOString()
  const results = { at, revision: await revision(), machine: await machineFacts(), ...extent, notes, rows, busy }
  process.stdout.write(json ? `${JSON.stringify(results)}\n` : report(results, tables))
  if (save) {
    mkdirSync(RESULTS, { recursive: true })
    const file = `${at.slice(0, 10)}-${results.revision}.json`
    writeFileSync(`${RESULTS}/${file}`, `${JSON.stringify(results, undefined, 2)}\n`)
    if (!json) process.stdout.write(`\nsaved as bench/results/${file}\n`)
  }
  return 0
}

/** Without what cannot be measured here; `notes` get a sentence for each. */
async function withoutMissing(suite: Suite, notes: string[]): Promise<Suite> {
  const subjects = []
  for (const kind of suite.subjects) {
    const missing = await kind.missing?.()
    if (missing === undefined) subjects.push(kind)
    else notes.push(`${suite.name} without ${kind.name}: there is no ${missing}`)
  }
  const cases = suite.cases.filter(({ name, needs }) => {
    if (needs === undefined || isInstalled(needs)) return true
    notes.push(`${name} is left out: ${needs} is not installed (Debian: ${needs})`)
    return false
  })
  return { ...suite, subjects, cases }
}

/** Raises the subjects of a suite, which stay up meanwhile, and measures its cases. */
async function measureSuite(
  { name, subjects, cases }: Suite,
  extent: Extent,
  env: Record<string, string>,
  progress: Progress,
): Promise<Map<Case, Map<string, Sample[]>>> {
  const taken = new Map<Case, Map<string, Sample[]>>()
  if (cases.length === 0) return taken
  progress.step(`${name}: raising ${subjects.map((kind) => kind.name).join(', ')}`)
  const raised: Subject[] = []
  try {
    for (const kind of subjects) raised.push(await kind.raise(env))
    for (const wanted of cases) {
      const taking = raised.filter((subject) => !wanted.without.includes(subject.name))
      taken.set(wanted, await measure(wanted, taking, extent, progress))
    }
  } finally {
    await Promise.all(raised.map((subject) => subject.close()))
  }
  return taken
}

/** Makes a Node process write its CPU profile into `folder`. */
function profiling(folder: string): Record<string, string> {
  mkdirSync(folder, { recursive: true })
  return { LIMPID_BENCH_PROFILE: resolve(folder), NODE_OPTIONS: `--import=${PROFILER}` }
}

/** One warm-up, then in each round every subject once; who begins changes from round to round. */
async function measure(
  wanted: Case,
  subjects: readonly Subject[],
  { rounds, seconds }: Extent,
  progress: Progress,
): Promise<Map<string, Sample[]>> {
  const samples = new Map<string, Sample[]>(subjects.map(({ name }) => [name, []]))
  for (const subject of subjects) {
    progress.step(`${wanted.title}: warming up ${subject.name}`)
    await wanted.measure(subject, WARM_UP_SECONDS)
  }
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < subjects.length; turn++) {
      const subject = subjects[(round + turn) % subjects.length]!
      progress.step(`${wanted.title}: round ${round + 1} of ${rounds}, ${subject.name}`)
      samples.get(subject.name)!.push(await wanted.measure(subject, seconds))
    }
  }
  return samples
}

interface Results extends Extent {
  readonly revision: string
  readonly machine: Awaited<ReturnType<typeof machineFacts>>
  readonly notes: readonly string[]
  readonly rows: readonly Row[]
}

function report({ revision, machine, rounds, seconds, notes }: Results, tables: readonly string[]): string {
  const { kernel, cores, processor, node, others } = machine
  const versions = Object.entries(others).map(([program, version]) => `${program} ${version}, `)
  return [
    `limpid ${revision}, Node.js ${node}, ${versions.join('')}Linux ${kernel}, ${cores} × ${processor}`,
    `medians of ${rounds} rounds of ${seconds} s, taken in turns; ratio of medians (smallest–largest ratio of a round)`,
    '',
    ...tables,
    ...notes,
  ].join('\n')
}

process.exitCode = await main(process.argv.slice(2))
