import { LimpidError } from '../errors.ts'

/** Problems of one file that are reported; a file with more is another kind of file. */
export const MAX_PROBLEMS = 50

/** One thing that is wrong with a configuration: where in it, and what. */
export interface Problem {
  /** Keys and list positions that lead to the value: `['listeners', 0, 'to']`. */
  readonly path: readonly (string | number)[]
  /** `key` when the key itself is the problem: it stands at the end of `path`. */
  readonly at?: 'key' | 'value'
  /** `expected a port from 1 to 65535, found 70000`; `listener name "web" is used twice`. */
  readonly message: string
  /** What may have been meant. */
  readonly suggestion?: string | undefined
  /** The key at the end of `path` is not there: why it must be. */
  readonly missing?: string
}

/** A key that is not there, and why it must be. */
export function missing(key: string, why: string): Problem {
  return { path: [key], message: `expected "${key}": ${why}`, missing: why }
}

/** Takes down one problem; what is found wrong with a value does not keep the others from being looked at. */
export type Report = (problem: Problem) => void

/**
 * LIMPID_CONFIG: `problems` has them all, as `file:line:column: …`. The message is the first of them, which suits a
 * command's one line, or with `inFull` all.
 */
export class ConfigError extends LimpidError {
  readonly problems: readonly string[]

  constructor(problems: readonly string[], { inFull = false, cause }: { inFull?: boolean; cause?: unknown } = {}) {
    const shown = problems.slice(0, inFull ? problems.length : 1)
    const more = problems.length - shown.length
    super('LIMPID_CONFIG', `${shown.join('; ')}${more > 0 ? ` (and ${more} more: \`limpid check\` shows all)` : ''}`, {
      cause,
    })
    this.problems = problems
  }
}

/** A configuration as it was written, in a file or a program, and how its problems are told. */
export interface ConfigSource {
  readonly value: unknown
  /** All problems, each with its place. */
  error(problems: readonly Problem[]): ConfigError
}

const SHOWN = 60 // characters of a value that an error repeats

/** A value as an error names it: `"text"`, `70000`, `a list`, `nothing`. */
export function describeValue(value: unknown): string {
  if (value === undefined || value === null) return 'nothing'
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list'
  if (typeof value === 'object') return 'a map'
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value)
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}…`
}

/** `expected A, found B`, with what is particular about this value. */
export function expectedText(expected: string, found: unknown, hint: string | undefined): string {
  return `expected ${expected}, found ${describeValue(found)}${hint === undefined ? '' : `: ${hint}`}`
}

/** `expected A, found B; did you mean "C"?` */
export function problemText(problem: Problem): string {
  return problem.suggestion === undefined
    ? problem.message
    : `${problem.message}; did you mean "${problem.suggestion}"?`
}
