import { ConfigError } from '../config/problem.ts'
import type { Invocation } from './invocation.ts'
import { note } from './print.ts'

/** Does what a command does that is there to find what is wrong: of a text that is, every problem is told, each on a line. */
export async function notingProblems(invocation: Invocation, action: () => Promise<void>): Promise<void> {
  try {
    await action()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const problem of error.problems) note(`${error.code}: ${problem}`)
    invocation.exitCode = error.exitCode
  }
}
