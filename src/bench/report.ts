import type { Standing } from './goals.ts'
import type { MachineFacts } from './machine.ts'
import type { Extent } from './measure.ts'
import type { Row } from './results.ts'
import { KERNEL, type Suite } from './suite.ts'

/** CPU seconds of the proxy for each second that passed, of all rounds, by case and subject. */
export type Busy = Record<string, Record<string, readonly (number | undefined)[]>>

/** What a run found. */
export interface Results extends Extent {
  readonly at: string
  readonly revision: string
  readonly machine: MachineFacts
  readonly notes: readonly string[]
  readonly rows: readonly Row[]
  readonly goals: readonly Standing[]
  readonly busy: Busy
}

/** One paragraph: what was measured, on what, and how often. */
export function machineLine({ at, revision, machine, rounds, seconds }: Results): string {
  const { kernel, cores, processor, node, others } = machine
  const versions = Object.entries(others).map(([program, version]) => `${program} ${version}, `)
  return [
    `limpid ${revision}, Node.js ${node}, ${versions.join('')}Linux ${kernel}, ${cores} × ${processor}, ${at.slice(0, 10)};`,
    `medians of ${rounds} rounds of ${seconds} s, taken in turns; ratio of medians (smallest–largest ratio of a round)`,
  ].join('\n')
}

const NEAR_THE_LIMIT = 0.9

/** Where the kernel alone is hardly faster than a proxy: there the ends of the load may be what is measured. */
export function limitNotes(suite: Suite, rows: readonly Row[]): string[] {
  const proxies = suite.subjects.map(({ name }) => name).filter((name) => name !== KERNEL)
  const compared = suite.comparisons.some((pair) => pair.includes(KERNEL)) // there it is what is wanted
  if (compared) return []
  return rows
    .filter(({ unit, better }) => better === 'more' && unit.endsWith('/s'))
    .flatMap(({ case: name, medians }) => {
      const limit = medians[KERNEL]
      if (limit === undefined) return []
      const near = proxies.filter((proxy) => (medians[proxy] ?? 0) >= NEAR_THE_LIMIT * limit)
      return near.length === 0
        ? []
        : [`${name}: ${near.join(', ')} near forwarding: the ends may be the limit, the cost tells more`]
    })
}
