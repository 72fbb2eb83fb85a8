import type { DnsRule } from '../../config/types.ts'
import { HEADER_BYTES } from '../../inspect/dns.ts'
import { nameBytes } from '../../inspect/dns-name.ts'
import { type CannedAnswer, cannedAnswer } from './canned.ts'
import type { Upstreams } from './upstreams.ts'

/** A rule made ready. */
export interface ReadyRule {
  readonly decision: DnsRule['decision']
  readonly types: readonly number[]
  readonly canned: CannedAnswer | undefined
  /** Where the rule forwards to; undefined: where the others go. */
  readonly upstreams: Upstreams | undefined
}

const QUESTION_NAME_AT = 4 // of a question's key, question-key.ts

/** Rules by what they name: the time to find one depends on the name asked for, not on how many are listed. */
export class DnsRules {
  readonly #rules: readonly ReadyRule[]
  /** Numbers of rules, ascending, by name or suffix on the wire. */
  readonly #names = new Map<string, number[]>()
  readonly #suffixes = new Map<string, number[]>()
  /** Rules that take every name. */
  readonly #any: number[] = []
  #longestSuffix = 0

  constructor(rules: readonly DnsRule[], upstreamsOf: (endpoints: DnsRule['to']) => Upstreams) {
    this.#rules = rules.map((rule) => ({
      decision: rule.decision,
      types: rule.types,
      canned: rule.answers === undefined ? undefined : cannedAnswer(rule.answers),
      upstreams: rule.to.length === 0 ? undefined : upstreamsOf(rule.to),
    }))
    for (const [number, { names, suffixes }] of rules.entries()) {
      if (names.length === 0 && suffixes.length === 0) this.#any.push(number)
      for (const name of names) add(this.#names, wireKey(name), number)
      for (const suffix of suffixes) {
        const key = wireKey(suffix)
        add(this.#suffixes, key, number)
        this.#longestSuffix = Math.max(this.#longestSuffix, key.length)
      }
    }
  }

  get isEmpty(): boolean {
    return this.#rules.length === 0
  }

  /** The first rule for a question: `key` is its questionKey(), `nameEnd` its position in the message. */
  find(key: string, nameEnd: number, type: number): ReadyRule | undefined {
    const end = QUESTION_NAME_AT + nameEnd - HEADER_BYTES
    let best = this.#first(this.#any, type, this.#rules.length)
    if (this.#names.size > 0) {
      best = this.#first(this.#names.get(key.slice(QUESTION_NAME_AT, end)), type, best)
    }
    if (this.#suffixes.size > 0) {
      for (let at = QUESTION_NAME_AT; at < end; at += key.charCodeAt(at) + 1) {
        if (end - at > this.#longestSuffix) continue
        best = this.#first(this.#suffixes.get(key.slice(at, end)), type, best)
      }
    }
    return this.#rules[best]
  }

  /** The first of `numbers` that takes the type and is before `best`; else `best`. */
  #first(numbers: readonly number[] | undefined, type: number, best: number): number {
    if (numbers === undefined) return best
    for (const number of numbers) {
      if (number >= best) return best
      const { types } = this.#rules[number]!
      if (types.length === 0 || types.includes(type)) return number
    }
    return best
  }
}

function wireKey(name: string): string {
  return Buffer.from(nameBytes(name) ?? []).toString('latin1')
}

function add(rules: Map<string, number[]>, key: string, number: number): void {
  const numbers = rules.get(key)
  if (numbers === undefined) rules.set(key, [number])
  else if (numbers.at(-1) !== number) numbers.push(number)
}
