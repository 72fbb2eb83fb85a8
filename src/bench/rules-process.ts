// What decisions of a policy cost, in a process of its own, started with --expose-gc. Arguments: the name of a RulesLoad, seconds. Prints
// RulesResult as JSON; fails at the first wrong answer.
import { setImmediate } from 'node:timers/promises'
import type { RulesResult } from './rules-cases.ts'
import { RULES_LOADS, type RulesLoadName } from './rules-load.ts'

const WARM_UP = 200_000
const MICROSECONDS = 1e6

const collect = (globalThis as { gc?: () => void }).gc!
const [name, seconds] = process.argv.slice(2)

const before = await heldBytes()
const { policy, facts } = await RULES_LOADS[name as RulesLoadName]()
const bytes = (await heldBytes()) - before
answer(WARM_UP)

let answers = 0
const startedAt = performance.now()
const cpuBefore = process.cpuUsage()
while (performance.now() - startedAt < Number(seconds) * 1000) answers += answer(facts.length)
const { user, system } = process.cpuUsage(cpuBefore)
const result: RulesResult = { answers, cpuSeconds: (user + system) / MICROSECONDS, bytes }
process.stdout.write(`${JSON.stringify(result)}\n`)

/** Asks so many times, at the least. Returns how many times. */
function answer(least: number): number {
  let count = 0
  while (count < least) {
    for (let i = 0; i < facts.length; i++) {
      const decided = policy.decide(facts[i]!)
      const isRight = decided.kind === 'decided' && (decided.rule !== undefined) === (i % 2 === 0)
      if (!isRight) throw new Error(`${JSON.stringify(facts[i])}: ${JSON.stringify(decided)}`)
    }
    count += facts.length
  }
  return count
}

/** Of the heap and of buffers, without what can be collected. */
async function heldBytes(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collect()
    await setImmediate() // buffers are freed behind the collection
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
