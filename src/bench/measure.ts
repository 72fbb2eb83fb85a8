import type { Progress } from '../lab/progress.ts'
import { isInstalled } from '../sys/program.ts'
import type { Samples } from './results.ts'
import type { Case, Sample, Subject, SubjectKind, Suite } from './suite.ts'

const MAX_FRESH_ROUNDS = 3 // memory varies less than time, and each round raises everybody anew

export interface Extent {
  /** Of warming up, until the compiler has nothing left to do. */
  readonly warmUpSeconds: number
  readonly rounds: number
  readonly seconds: number
}

/** How a suite is measured. */
export interface Measuring {
  readonly extent: Extent
  /** More of the environment for Limpid. */
  readonly env: Record<string, string>
  readonly progress: Progress
  /** Gets a sentence for each thing that the reader must know besides. */
  readonly notes: string[]
}

/** Without what cannot be measured here; the notes tell what. */
export async function withoutMissing(suite: Suite, notes: string[]): Promise<Suite> {
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

/** Measures the cases of a suite: at subjects that are up all the time, or raised for each measurement. */
export async function measureSuite(suite: Suite, measuring: Measuring): Promise<Map<Case, Samples>> {
  const taken = new Map<Case, Samples>()
  if (suite.cases.length === 0) return taken
  if (suite.isFresh) {
    for (const wanted of suite.cases) taken.set(wanted, await measureFresh(wanted, suite.subjects, measuring))
    return taken
  }
  measuring.progress.step(`${suite.name}: raising ${suite.subjects.map((kind) => kind.name).join(', ')}`)
  const raised: Subject[] = []
  try {
    for (const kind of suite.subjects) raised.push(await kind.raise(measuring.env))
    for (const wanted of suite.cases) {
      const taking = raised.filter((subject) => !wanted.without.includes(subject.name))
      taken.set(wanted, await measure(wanted, taking, measuring))
    }
  } finally {
    await Promise.all(raised.map((subject) => subject.close()))
  }
  return taken
}

/** One warm-up, then in each round every subject once; who begins changes from round to round. */
async function measure(wanted: Case, subjects: readonly Subject[], measuring: Measuring): Promise<Samples> {
  const { progress, extent, notes } = measuring
  if (wanted.prepare !== undefined) notes.push(await wanted.prepare(subjects))
  for (const subject of subjects) {
    progress.step(`${wanted.title}: warming up ${subject.name}`)
    await wanted.measure(subject, extent.warmUpSeconds)
  }
  return await inTurns(wanted, subjects, extent.rounds, progress, (subject) => wanted.measure(subject, extent.seconds))
}

/** In each round every subject once, raised for it. */
async function measureFresh(wanted: Case, kinds: readonly SubjectKind[], measuring: Measuring): Promise<Samples> {
  const { extent, env, progress } = measuring
  const rounds = Math.min(extent.rounds, MAX_FRESH_ROUNDS)
  return await inTurns(wanted, kinds, rounds, progress, async (kind) => {
    const subject = await kind.raise(env)
    try {
      return await wanted.measure(subject, extent.seconds)
    } finally {
      await subject.close()
    }
  })
}

async function inTurns<T extends { readonly name: string }>(
  { title }: Case,
  subjects: readonly T[],
  rounds: number,
  progress: Progress,
  take: (subject: T) => Promise<Sample>,
): Promise<Samples> {
  const samples = new Map<string, Sample[]>(subjects.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < subjects.length; turn++) {
      const subject = subjects[(round + turn) % subjects.length]!
      progress.step(`${title}: round ${round + 1} of ${rounds}, ${subject.name}`)
      samples.get(subject.name)!.push(await take(subject))
    }
  }
  return samples
}
