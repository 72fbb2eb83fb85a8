import { LimpidError } from '../errors.ts'

/** LIMPID_LIST: `problems` has what is wrong with one list, as `file:line: …`, no more than MAX_PROBLEMS; the message is the first. */
export class ListError extends LimpidError {
  readonly problems: readonly string[]

  constructor(problems: readonly string[], details: { cure?: string | undefined; cause?: unknown } = {}) {
    const more = problems.length - 1
    super('LIMPID_LIST', `${problems[0]}${more > 0 ? ` (and ${more} more)` : ''}`, details)
    this.problems = problems
  }
}
