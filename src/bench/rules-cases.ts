import { fileURLToPath } from 'node:url'
import type { RulesLoadName } from './rules-load.ts'
import { type Case, type Figure, MEGABYTES } from './suite.ts'

const PROCESS = fileURLToPath(new URL('./rules-process.js', import.meta.url))
const MEGA = 1e6

/** What the process of a load found. */
export interface RulesResult {
  readonly answers: number
  readonly cpuSeconds: number
  /** That the policy and its lists hold. */
  readonly bytes: number
}

const MICROSECONDS: Figure = { unit: 'CPU µs/answer', better: 'less', isCompared: false, of: ({ cost }) => cost }

/** What the decision about a flow costs; nothing goes over a network. */
export const RULES_CASES: readonly Case[] = [
  decisions('rules', 'mixed', '10,000 rules by names, prefixes and ports: decisions'),
  decisions('rules-names', 'names', 'a list of 1,000,000 names: decisions'),
  decisions('rules-prefixes', 'prefixes', 'a list of 100,000 prefixes: decisions'),
]

function decisions(name: string, load: RulesLoadName, title: string): Case {
  return {
    name,
    title,
    figures: [MICROSECONDS, MEGABYTES],
    without: [],
    measure: async ({ topology }, seconds) => {
      const args = ['--expose-gc', PROCESS, load, String(seconds)]
      const said = await topology.x.run(process.execPath, args)
      const { answers, cpuSeconds, bytes } = JSON.parse(said) as RulesResult
      return { rate: answers / seconds, cost: (cpuSeconds * MEGA) / answers, busy: undefined, megabytes: bytes / MEGA }
    },
  }
}
