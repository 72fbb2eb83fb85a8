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
}

/** Takes down one problem; what is found wrong with a value does not keep the others from being looked at. */
export type Report = (problem: Problem) => void

/** LIMPID_CONFIG for a file: the message is its first problem, `problems` has them all, as `file:line:column: …`. */
export class ConfigError extends LimpidError {
  readonly problems: readonly string[]

  constructor(problems: readonly string[], cause?: unknown) {
    const more = problems.length - 1
    super(
      'LIMPID_CONFIG',
      `${problems[0] ?? 'no configuration'}${more > 0 ? ` (and ${more} more: \`limpid check\` shows all)` : ''}`,
      {
        cause,
      },
    )
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

/** `expected A, found B; did you mean "C"?` */
export function problemText(problem: Problem): string {
  return problem.suggestion === undefined
    ? problem.message
    : `${problem.message}; did you mean "${problem.suggestion}"?`
}
