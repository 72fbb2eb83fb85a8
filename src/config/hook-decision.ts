import { buildDecision, decisionKeys } from './policy-decision.ts'
import type { Decision } from './policy-types.ts'
import { expectedText, type Problem, problemText } from './problem.ts'
import { value } from './schema.ts'
import * as z from './zod.ts'

const DECISION = z.strictObject(decisionKeys({ value }), {
  error: 'a decision such as { then: "reject" }, or undefined',
})

/** What a hook returns: the words of a policy rule's decision. */
export type DecisionWords = z.input<typeof DECISION>

/**
 * What a hook returned, as a decision; undefined: it has none. Else what is wrong with it, in words. `markMask`: bits of fwmarks that are
 * Limpid's own. `apps`: names of those that there are.
 */
export function readDecision(
  returned: unknown,
  markMask: number,
  apps: readonly string[],
): Decision | undefined | string {
  if (returned === undefined) return undefined
  const parsed = DECISION.safeParse(returned)
  if (!parsed.success) return wrongWords(parsed.error, returned)
  const problems: Problem[] = []
  const decision = buildDecision(parsed.data, [], {
    markMask,
    apps,
    pools: undefined,
    report: (problem) => problems.push(problem),
  })
  return problems.length > 0 ? problemText(problems[0]!) : decision
}

/** The first thing that is wrong with what a hook returned. */
export function wrongWords({ issues }: z.ZodError, returned: unknown): string {
  const [issue] = issues
  if (issue!.code === 'unrecognized_keys') return `unknown key "${issue!.keys[0]!.slice(0, 60)}"`
  const found = issue!.path.reduce<unknown>((at, key) => Object(at)[key], returned)
  return `${issue!.path.join('.')}${issue!.path.length > 0 ? ': ' : ''}${expectedText(issue!.message, found, undefined)}`
}
