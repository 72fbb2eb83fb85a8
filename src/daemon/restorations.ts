import { Allowance } from '../relay/allowance.ts'
import type { Difference } from '../ruleset/verify.ts'

const GATHER_MS = 250 // one `ip rule flush` may be seen as several removals
const NOTES_AT_ONCE = 5
const NOTE_EVERY_MS = 60_000
const NAMED = 3
const MAX_GATHERED = 100 // somebody may add a thousand rules

/**
 * Counts restorations and says them: once for each incident, and once a minute when somebody keeps at it.
 *
 *     rules restored in 12 ms: ip -4 rule pref 195 … was removed (3 restorations so far)
 */
export class Restorations {
  /** How many times rules were put back. */
  count = 0
  readonly #note: (line: string) => void
  readonly #allowance = new Allowance(NOTES_AT_ONCE, NOTE_EVERY_MS)
  #untold: { times: number; longestMs: number; readonly what: Set<string> } = nothingUntold()
  #failure: string | undefined
  #toldFailure: string | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(note: (line: string) => void) {
    this.#note = note
  }

  /** @param ms from the first word of it to the last rule back in place. */
  restored(differences: readonly Difference[], ms: number): void {
    this.count++
    this.#untold.times++
    this.#untold.longestMs = Math.max(this.#untold.longestMs, ms)
    for (const difference of differences) {
      if (this.#untold.what.size < MAX_GATHERED) this.#untold.what.add(describeChange(difference))
    }
    this.#failure = undefined
    this.#toldFailure = undefined
    this.#tellSoon()
  }

  /** The rules are not in place, and why. Said when it is new. */
  failed(why: string): void {
    if (this.#toldFailure === why) return
    this.#failure = why
    this.#tellSoon()
  }

  /** Says what is still to say. */
  close(): void {
    clearTimeout(this.#timer)
    this.#tell()
  }

  #tellSoon(): void {
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(() => this.#tell(), Math.max(GATHER_MS, this.#allowance.waitMs(performance.now())))
    this.#timer.unref()
  }

  #tell(): void {
    this.#timer = undefined
    const { times, longestMs, what } = this.#untold
    if (times > 0) {
      const often =
        times === 1 ? `in ${longestMs.toFixed(0)} ms` : `${times} times, in ${longestMs.toFixed(0)} ms at most`
      this.#note(`rules restored ${often}: ${shortened([...what])} (${this.count} ${plural(this.count)} so far)`)
    }
    if (this.#failure !== undefined) {
      this.#note(`warning: the rules are not as planned: ${this.#failure}`)
      this.#toldFailure = this.#failure
      this.#failure = undefined
    }
    this.#untold = nothingUntold()
    this.#allowance.take(performance.now())
  }
}

function nothingUntold() {
  return { times: 0, longestMs: 0, what: new Set<string>() }
}

function plural(count: number): string {
  return count === 1 ? 'restoration' : 'restorations'
}

function shortened(what: readonly string[]): string {
  const more = what.length - NAMED
  return `${what.slice(0, NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}

/** `ip -4 rule pref 195 … was removed`. */
function describeChange({ what, expected, found }: Difference): string {
  if (found === undefined) return `${expected === what ? what : `${what} ${expected}`} was removed`
  if (expected === undefined) return `${found === what ? what : `${what} ${found}`} was added`
  return `${what} was changed to ${found}`
}
