import { thrownText } from '../errors.ts'
import { Seldom } from './seldom.ts'

/** What came of calling a hook. */
export type HookOutcome<T> =
  | { readonly kind: 'returned'; readonly value: T }
  /** It threw, rejected, did not settle in time, or could not be called: the failure policy says what now. */
  | { readonly kind: 'failed' }

export interface HookRunnerOptions {
  /** Of the hook, for people: `onFlow`. */
  readonly name: string
  /** How long it may take. */
  readonly deadlineMs: number
  /** Calls that may be waited for at once; one more fails without being made. */
  readonly mostWaiting: number
  note(line: string): void
  /** Its first word is `number` while the hook computes, for who watches from outside; else 0. */
  readonly computing: Uint32Array
  readonly number: number
}

export interface HookCounters {
  /** It threw, rejected, or returned what cannot be understood. */
  failures: number
  /** It had not settled at its deadline. */
  timeouts: number
  /** It was not called: as many calls as there may be were waited for. */
  skipped: number
}

const TELL_EVERY_MS = 10_000 // a hook that fails for every flow would fill the log

/**
 * Calls one hook of the user's: with a deadline, and so that whatever it does (but compute for ever, on our own thread) costs the one
 * who waits for it and nobody else. Failures are counted, and told once in a while.
 */
export class HookRunner {
  readonly counters: HookCounters = { failures: 0, timeouts: 0, skipped: 0 }
  readonly #options: HookRunnerOptions
  #waiting = 0
  readonly #failing = new Seldom(TELL_EVERY_MS)
  #onQuiet: (() => void)[] = []

  constructor(options: HookRunnerOptions) {
    this.#options = options
  }

  /** Calls that are waited for at this moment. */
  get waiting(): number {
    return this.#waiting
  }

  /**
   * `done` is told once: within this call where the hook returns no promise, and not any more after the returned function was called,
   * which gives up waiting. `onLate`: the deadline has passed, or the caller gave up, before the hook was done.
   */
  run<T>(call: () => T | PromiseLike<T>, done: (outcome: HookOutcome<T>) => void, onLate?: () => void): () => void {
    const { mostWaiting, name, deadlineMs } = this.#options
    if (this.#waiting >= mostWaiting) {
      this.counters.skipped++
      this.#tell(`${mostWaiting} calls are waited for, so that it was not asked`)
      done({ kind: 'failed' })
      return nothing
    }
    let returned: T | PromiseLike<T>
    let isPending: boolean
    const { computing, number } = this.#options
    computing[0] = number
    try {
      returned = call()
      isPending = isPromise(returned) // looks at an object of theirs, which may throw too
    } catch (error) {
      this.fail(error)
      done({ kind: 'failed' })
      return nothing
    } finally {
      computing[0] = 0
    }
    if (!isPending) {
      done({ kind: 'returned', value: returned as T })
      return nothing
    }
    let isOver = false
    const over = (): boolean => {
      if (isOver) return false
      isOver = true
      if (--this.#waiting === 0) for (const done of this.#onQuiet.splice(0)) done()
      clearTimeout(timer)
      return true
    }
    const timer = setTimeout(() => {
      over()
      this.counters.timeouts++
      this.#tell(`${name} had not settled after ${deadlineMs} ms`)
      onLate?.()
      done({ kind: 'failed' })
    }, deadlineMs)
    this.#waiting++
    Promise.resolve(returned).then(
      (value) => {
        if (over()) done({ kind: 'returned', value })
      },
      (error: unknown) => {
        if (!over()) return // it was told when it was late
        this.fail(error)
        done({ kind: 'failed' })
      },
    )
    return () => {
      if (over()) onLate?.()
    }
  }

  /** Resolves when no call is waited for; each has its deadline. */
  async quiet(): Promise<void> {
    if (this.#waiting > 0) await new Promise<void>((resolve) => this.#onQuiet.push(resolve))
  }

  /** Counts, and now and then tells, what it did wrong. */
  fail(error: unknown): void {
    this.counters.failures++
    this.#tell(thrownText(error))
  }

  #tell(what: string): void {
    const times = this.#failing.happened(performance.now())
    if (times === undefined) return
    const often = times === 1 ? '' : ` ${times} times since it was last told, at last`
    this.#options.note(`hook ${this.#options.name} failed${often}: ${what}`)
  }
}

function nothing(): void {}

function isPromise(value: unknown): boolean {
  return typeof (value as { then?: unknown } | undefined | null)?.then === 'function'
}
