import { LimpidError } from '../errors.ts'
import { expectedText, type Problem, problemText } from './problem.ts'
import type { ValueKind } from './values.ts'

/** LIMPID_USAGE for a value behind a flag or in the place of an argument. */
export function usageError(where: string, problem: string): LimpidError {
  return new LimpidError('LIMPID_USAGE', `${where}: ${problem}`)
}

/** The value of a flag, or undefined when the flag was not given. @throws LimpidError LIMPID_USAGE */
export function flagValue<T>(where: string, kind: ValueKind<T>, text: string): T
export function flagValue<T>(where: string, kind: ValueKind<T>, text: string | undefined): T | undefined
export function flagValue<T>(where: string, kind: ValueKind<T>, text: string | undefined): T | undefined {
  if (text === undefined) return undefined
  const value = kind.parse(text)
  if (value !== undefined) return value
  const message = expectedText(kind.expected, text, kind.hint?.(text))
  throw usageError(where, problemText({ path: [], message, suggestion: kind.suggest?.(text) }))
}

const FORM_OF: Readonly<Record<string, string>> = { to: 'HOST:PORT', listen: 'ADDR:PORT', ports: 'PORT' }

/** Raises the first problem of a listener that was put together from flags, with the flag that its key came from. */
export function throwAsUsage(flagOf: Readonly<Record<string, string>>): (problem: Problem) => never {
  return (problem) => {
    const key = String(problem.path[0])
    const flag = flagOf[key]
    if (flag !== undefined && problem.missing !== undefined) {
      throw new LimpidError('LIMPID_USAGE', `${flag} ${FORM_OF[key]} is missing: ${problem.missing}`)
    }
    throw new LimpidError(
      'LIMPID_USAGE',
      flag === undefined ? problemText(problem) : `${flag}: ${problemText(problem)}`,
    )
  }
}
