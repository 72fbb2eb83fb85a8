import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { LimpidError } from '../errors.ts'
import type { Extent } from './measure.ts'
import type { Suite } from './suite.ts'
import { revisionSuite, SUITES } from './suites.ts'
import { REVISION_CASES } from './tcp-cases.ts'

const FULL: Extent = { warmUpSeconds: 2, rounds: 5, seconds: 2 }
const QUICK: Extent = { warmUpSeconds: 1, rounds: 2, seconds: 1 }
/** So many that the rule for "slower" has a spread to judge by. */
const AGAINST_REVISION: Extent = { warmUpSeconds: 2, rounds: 10, seconds: 2 }
const MAX_ROUNDS = 50
const MAX_SECONDS = 8 // a load must begin and end before the lab's patience with a program (20 s)

const NAMES = SUITES.flatMap(({ name, cases }) => [name, ...cases.map((wanted) => wanted.name)])

export const USAGE = `usage: npm run bench -- [--quick] [--json] [--case NAME]… [--rounds N] [--seconds N] [--profile FOLDER]
                        [--write-docs] [--no-save]
       npm run bench -- --compare REVISION [--json] [--case NAME]… [--rounds N] [--seconds N] [--no-save]

  --quick             ${QUICK.rounds} rounds of ${QUICK.seconds} s instead of ${FULL.rounds} of ${FULL.seconds} s
  --json              the results as JSON instead of a table
  --case NAME         only ${NAMES.join(', ')}
  --profile FOLDER    write Limpid's CPU profile there (figures suffer)
  --write-docs        write the tables into docs/performance.md and the chart; with --case those
                      of these suites alone
  --no-save           no file in bench/results
  --compare REVISION  this build against the one of that git revision, ${AGAINST_REVISION.rounds} rounds of ${AGAINST_REVISION.seconds} s of ${REVISION_CASES.join(', ')},
                      or of other cases over TCP; exit code 1 when this one is slower
`

export interface Options {
  /** With the wanted cases alone. */
  readonly suites: readonly Suite[]
  readonly extent: Extent
  readonly json: boolean
  readonly save: boolean
  /** `suites`: the tables of the measured ones alone. */
  readonly writeDocs: 'all' | 'suites' | undefined
  readonly profile: string | undefined
  /** The revision that this build is held against. */
  readonly revision: string | undefined
}

/** undefined: help is wanted. @throws LimpidError LIMPID_USAGE. */
export function readOptions(argv: readonly string[]): Options | undefined {
  const { values } = parsed(argv)
  if (values.help) return undefined
  const { compare: revision, built } = values
  if ((revision === undefined) !== (built === undefined)) {
    throw usage('--compare needs a build of that revision', 'npm run bench makes one')
  }
  if (values['write-docs'] && (revision !== undefined || values.profile !== undefined)) {
    throw usage('--write-docs does not go with --compare or --profile', 'leave them out')
  }
  const part = values['write-docs'] && values.case?.find((name) => SUITES.every((suite) => suite.name !== name))
  if (part) {
    throw usage(`--write-docs writes whole suites, not ${part}`, `name ${SUITES.map(({ name }) => name).join(', ')}`)
  }
  const base = revision !== undefined ? AGAINST_REVISION : values.quick ? QUICK : FULL
  return {
    suites:
      revision === undefined
        ? wantedSuites(SUITES, values.case)
        : wantedSuites([revisionSuite(revision, resolve(built!, 'bin/limpid'))], values.case ?? REVISION_CASES),
    extent: {
      warmUpSeconds: base.warmUpSeconds,
      rounds: count('--rounds', values.rounds, base.rounds, MAX_ROUNDS),
      seconds: count('--seconds', values.seconds, base.seconds, MAX_SECONDS),
    },
    json: values.json ?? false,
    save: !values['no-save'],
    writeDocs: values['write-docs'] !== true ? undefined : values.case === undefined ? 'all' : 'suites',
    profile: values.profile,
    revision,
  }
}

/** `names`: of suites, or of cases; undefined: all. */
function wantedSuites(suites: readonly Suite[], names: readonly string[] | undefined): Suite[] {
  const known = suites.flatMap(({ name, cases }) => [name, ...cases.map((wanted) => wanted.name)])
  const unknown = names?.find((name) => !known.includes(name))
  if (unknown !== undefined) throw usage(`no such case: ${unknown}`, `take one of ${known.join(', ')}`)
  const isWanted = (name: string): boolean => names === undefined || names.includes(name)
  return suites
    .map((suite) => ({ ...suite, cases: suite.cases.filter(({ name }) => isWanted(suite.name) || isWanted(name)) }))
    .filter(({ cases }) => cases.length > 0)
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
        'write-docs': { type: 'boolean' },
        case: { type: 'string', multiple: true },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        profile: { type: 'string' },
        compare: { type: 'string' },
        built: { type: 'string' }, // the folder of that revision's build; scripts/bench.mjs adds it
      },
    })
  } catch (error) {
    throw usage((error as Error).message, 'see npm run bench -- --help')
  }
}

function count(flag: string, text: string | undefined, otherwise: number, most: number): number {
  const value = text === undefined ? otherwise : Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= most) return value
  throw new LimpidError('LIMPID_USAGE', `${flag} ${text}: not a whole number from 1 to ${most}`)
}

function usage(what: string, cure: string): LimpidError {
  return new LimpidError('LIMPID_USAGE', what, { cure })
}
