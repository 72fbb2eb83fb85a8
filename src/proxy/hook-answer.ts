import type { HookOutcome, HookRunner } from '../policy/hook-runner.ts'
import type { ReadyHooks } from './hooks.ts'

/** What becomes of what a hook failed to decide; undefined: it goes on as the rules say. */
export function failureOf({ onFailure }: Pick<ReadyHooks, 'onFailure'>): 'failed' | undefined {
  return onFailure === 'reject' ? 'failed' : undefined
}

/**
 * What a hook has answered, as `read` understands it; where that says in words why it does not, the hook has failed. `called`: what it should
 * have returned, for people.
 */
export function answerOf<T>(
  outcome: HookOutcome<unknown>,
  { called, read }: { readonly called: string; read(returned: unknown): T | string },
  runner: HookRunner,
  hooks: Pick<ReadyHooks, 'onFailure'>,
): T | 'failed' | undefined {
  if (outcome.kind === 'failed') return failureOf(hooks)
  const answer = readSafely(() => read(outcome.value))
  if (typeof answer !== 'string') return answer
  runner.fail(`it returned no ${called}: ${answer}`)
  return failureOf(hooks)
}

/** Getters of an object of theirs may throw. */
function readSafely<T>(read: () => T): T | string {
  try {
    return read()
  } catch {
    return 'it cannot be read'
  }
}
