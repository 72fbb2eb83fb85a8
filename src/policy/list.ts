import { setImmediate } from 'node:timers/promises'
import { MAX_PROBLEMS } from '../config/problem.ts'
import { type NameSet, NameSetBuilder } from '../net/name-set.ts'
import { type PrefixSet, PrefixSetBuilder } from '../net/prefix-set.ts'
import { ListError } from './list-error.ts'
import { type Collected, readLine } from './list-line.ts'

/** What one list holds. It never changes; a list that is read anew is another. */
export interface List {
  readonly names: NameSet
  readonly prefixes: PrefixSet
}

/** Lines, and entries, of one list: twice the million that it is made for. */
export const MAX_ENTRIES = 2_000_000

const TURN_MS = 8 // as long as flows may wait for a list that is read behind their backs
const TURN_LINES = 64 // between two looks at the clock: 0.1 ms, some more before the code is compiled
const PIECE_BYTES = 16_384 // decoded at once; no line is longer
const LF = 0x0a

/**
 * The list that `bytes` are the text of, UTF-8; `file` is its name in problems. Gives the event loop back every few milliseconds.
 * @throws ListError with what is wrong; the reason of `signal` when that is aborted.
 */
export async function parseList(bytes: Buffer, file: string, signal?: AbortSignal): Promise<List> {
  const into: Collected = {
    names: new NameSetBuilder(),
    prefixes: new PrefixSetBuilder(),
    entries: 0,
    prefixEntries: 0,
  }
  const problems: string[] = []
  let line = 0
  const turns = new Turns(signal)
  for (let from = 0; from < bytes.length; ) {
    const end = endOfPiece(bytes, from)
    if (end === undefined) {
      problems.push(`${file}:${line + 1}: a line of more than ${PIECE_BYTES} bytes`)
      break
    }
    for (const text of bytes.toString('utf8', from, end).split('\n')) {
      line++
      const problem = readLine(line === 1 ? text.replace(/^\ufeff/, '') : text, into)
      const isTooLong = Math.max(line, into.entries) > MAX_ENTRIES
      if (problem !== undefined) problems.push(`${file}:${line}: ${problem}`)
      if (isTooLong) problems.push(`${file}:${line}: more than ${MAX_ENTRIES} lines or entries`)
      if (isTooLong || problems.length >= MAX_PROBLEMS) throw new ListError(problems)
      if ((line % TURN_LINES === 0 || text.length > 1_000) && turns.isOver()) await turns.next()
    }
    from = end + 1
  }
  if (problems.length > 0) throw new ListError(problems)
  return { names: await done(into.names.steps(), turns), prefixes: await done(into.prefixes.steps(), turns) }
}

async function done<T>(steps: Generator<undefined, T, undefined>, turns: Turns): Promise<T> {
  for (;;) {
    const { done, value } = steps.next()
    if (done) return value
    if (turns.isOver()) await turns.next()
  }
}

/** Turns of the event loop, shared with everything else. */
class Turns {
  readonly #signal: AbortSignal | undefined
  #endsAt = performance.now() + TURN_MS

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal
  }

  isOver(): boolean {
    return performance.now() >= this.#endsAt
  }

  /** @throws the signal's reason when it is aborted. */
  async next(): Promise<void> {
    await setImmediate()
    this.#signal?.throwIfAborted()
    this.#endsAt = performance.now() + TURN_MS
  }
}

/** Where the last line that ends in the piece ends, at its LF or the end of the text; undefined when none does. */
function endOfPiece(bytes: Buffer, from: number): number | undefined {
  if (bytes.length - from <= PIECE_BYTES) return bytes.length
  const end = bytes.lastIndexOf(LF, from + PIECE_BYTES)
  return end < from ? undefined : end
}
