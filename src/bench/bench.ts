import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LimpidError } from '../errors.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { type Progress, progressOn } from '../lab/progress.ts'
import { isInstalled } from '../sys/program.ts'
import { CASES, type Case, type Sample } from './cases.ts'
import { machineFacts, revision } from './machine.ts'
import { type Row, rowsOf, tableOf } from './results.ts'
import { raiseSubject, type Subject, type SubjectName } from './subjects.ts'

const RESULTS = fileURLToPath(new URL('../../bench/results', import.meta.url))
const PROFILER = new URL('./profiler.js', import.meta.url).href
const WARM_UP_SECONDS = 1

interface Extent {
  readonly rounds: number
  readonly seconds: number
}

const ALL: readonly SubjectName[] = ['limpid', 'haproxy', 'haproxy-splice', 'forwarding']
const FULL: Extent = { rounds: 5, seconds: 2 }
const QUICK: Extent = { rounds: 2, seconds: 1 }

const USAGE = `usage: npm run bench -- [--quick] [--json] [--case NAME]… [--rounds N] [--seconds N] [--profile FOLDER] [--no-save]

  --quick            ${QUICK.rounds} rounds of ${QUICK.seconds} s instead of ${FULL.rounds} of ${FULL.seconds} s
  --json             the results as JSON instead of a table
  --case NAME        only ${CASES.map(({ name }) => name).join(', ')}
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
  readonly cases: readonly Case[]
  readonly extent: Extent
  readonly json: boolean
  readonly save: boolean
  readonly profile: string | undefined
}

/** undefined: help is wanted. @throws LimpidError LIMPID_USAGE. */
function readOptions(argv: readonly string[]): Options | undefined {
  const { values } = parsed(argv)
  if (values.help) return undefined
  const unknown = values.case?.find((wanted) => CASES.every(({ name }) => name !== wanted))
  if (unknown !== undefined) {
    const known = CASES.map(({ name }) => name).join(', ')
    throw new LimpidError('LIMPID_USAGE', `no such case: ${unknown}`, { cure: `take one of ${known}` })
  }
  const base = values.quick ? QUICK : FULL
  return {
    cases: CASES.filter(({ name }) => values.case?.includes(name) ?? true),
    extent: {
      rounds: count('--rounds', values.rounds, base.rounds),
      seconds: count('--seconds', values.seconds, base.seconds),
    },
    json: values.json ?? false,
    save: !values['no-save'],
    profile: values.profile,
  }
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

async function bench({ cases, extent, json, save, profile }: Options): Promise<number> {
  const progress = progressOn(process.stderr, json)
  const notes = missing(cases)
  const names = ALL.filter((name) => !name.startsWith('haproxy') || isInstalled('haproxy'))
  const usable = cases.filter(({ needsWrk }) => !needsWrk || isInstalled('wrk'))
  progress.step(`raising ${names.length} topologies: ${names.join(', ')}`)
  const env = profile === undefined ? {} : profiling(profile)
  const subjects: Subject[] = []
  const rows: Row[] = []
  let busy: Record<string, Record<string, (number | undefined)[]>> = {}
  try {
    for (const name of names) subjects.push(await raiseSubject(name, env))
    for (const wanted of usable) {
      const taking = subjects.filter(({ name }) => !wanted.without.includes(name))
      const samples = await measure(wanted, taking, extent, progress)
      rows.push(...rowsOf(wanted, samples))
      busy = {
        ...busy,
        [wanted.name]: Object.fromEntries([...samples].map(([who, all]) => [who, all.map((s) => s.busy)])),
      }
    }
  } finally {
    await Promise.all(subjects.map((subject) => subject.close()))
  }
  progress.clear()
  const at = new Date().toISOString()
  const results = { at, revision: await revision(), machine: await machineFacts(), ...extent, notes, rows, busy }
  process.stdout.write(json ? `${JSON.stringify(results)}\n` : report(results))
  if (save) {
    mkdirSync(RESULTS, { recursive: true })
    const file = `${at.slice(0, 10)}-${results.revision}.json`
    writeFileSync(`${RESULTS}/${file}`, `${JSON.stringify(results, undefined, 2)}\n`)
    if (!json) process.stdout.write(`\nsaved as bench/results/${file}\n`)
  }
  return 0
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
): Promise<Map<SubjectName, Sample[]>> {
  const samples = new Map<SubjectName, Sample[]>(subjects.map(({ name }) => [name, []]))
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

/** What cannot be measured here, one sentence each. */
function missing(cases: readonly Case[]): string[] {
  const notes: string[] = []
  if (!isInstalled('haproxy'))
    notes.push('HAProxy is not installed (Debian: haproxy), so there is nothing to compare with')
  const skipped = cases.filter(({ needsWrk }) => needsWrk && !isInstalled('wrk')).map(({ name }) => name)
  if (skipped.length > 0) notes.push(`wrk is not installed (Debian: wrk), so these are left out: ${skipped.join(', ')}`)
  return notes
}

interface Results extends Extent {
  readonly revision: string
  readonly machine: Awaited<ReturnType<typeof machineFacts>>
  readonly notes: readonly string[]
  readonly rows: readonly Row[]
}

function report({ revision, machine, rounds, seconds, notes, rows }: Results): string {
  const { kernel, cores, processor, node, haproxy } = machine
  return [
    `limpid ${revision}, Node.js ${node}, HAProxy ${haproxy ?? '–'}, Linux ${kernel}, ${cores} × ${processor}`,
    `medians of ${rounds} rounds of ${seconds} s, taken in turns; ratio of medians (smallest–largest ratio of a round)`,
    '',
    tableOf(rows),
    ...notes,
  ].join('\n')
}

process.exitCode = await main(process.argv.slice(2))
