import type { PolicyMatch } from '../config/policy-types.ts'
import type { FlowFacts } from './facts.ts'

/** Numbers of rules, one bit each. */
export type Bits = Uint32Array

/** The rules that are filed under one key: a port, a prefix, a name. */
export interface Filed {
  readonly rules: number[]
  /** Where they are many: their bits, and those of `others`. */
  allowed: Bits | undefined
}

/** Finds what is filed under what a flow has. False: nothing is known yet, and all rules stay in. */
export type Find = (facts: FlowFacts, found: Filed[]) => boolean

/** One thing that many rules ask about, and what the flow that was looked at last leaves in. */
export class Dimension {
  /** Rules that do not ask about it, or not in a way that can be looked up. */
  readonly others: Bits
  /** `few`: `rules` beside the others; `many`: `allowed`, with the others; `all`: nothing is known. */
  result: 'few' | 'many' | 'all' = 'all'
  allowed: Bits
  readonly rules: number[] = []
  readonly #find: Find
  readonly #found: Filed[] = []
  readonly #scratch: Bits

  constructor(others: Bits, find: Find) {
    this.others = others
    this.allowed = others
    this.#scratch = others.slice()
    this.#find = find
  }

  look(facts: FlowFacts): 'few' | 'many' | 'all' {
    const found = this.#found
    while (found.length > 0) found.pop()
    while (this.rules.length > 0) this.rules.pop()
    if (!this.#find(facts, found)) this.result = 'all'
    else if (isFew(found)) {
      this.result = 'few'
      for (const { rules } of found) for (const rule of rules) this.rules.push(rule)
    } else {
      this.result = 'many'
      this.allowed = found.length === 1 ? found[0]!.allowed! : this.#together(found)
    }
    return this.result
  }

  #together(found: readonly Filed[]): Bits {
    const bits = this.#scratch
    bits.set(this.others)
    for (const { rules, allowed } of found) {
      if (allowed === undefined) for (const rule of rules) bits[rule >>> 5]! |= 1 << (rule & 31)
      else for (let i = 0; i < bits.length; i++) bits[i]! |= allowed[i]!
    }
    return bits
  }

  /** Whether the rule is one of those that can be found by it. */
  has(rule: number): boolean {
    return (this.others[rule >>> 5]! & (1 << (rule & 31))) === 0
  }

  allows(rule: number): boolean {
    if (this.result === 'all') return true
    const bits = this.result === 'many' ? this.allowed : this.others
    return (bits[rule >>> 5]! & (1 << (rule & 31))) !== 0 || (this.result === 'few' && this.rules.includes(rule))
  }
}

function isFew(found: readonly Filed[]): boolean {
  for (const { allowed } of found) if (allowed !== undefined) return false
  return true
}

/** Files the rules that can be found, and has the bits of the others; undefined when none can. */
export function othersOf(
  matches: readonly PolicyMatch[],
  isFound: (match: PolicyMatch) => boolean,
  file: (match: PolicyMatch, rule: number) => void,
): Bits | undefined {
  const others = new Uint32Array((matches.length + 31) >>> 5)
  let found = 0
  matches.forEach((match, rule) => {
    if (isFound(match)) {
      found++
      file(match, rule)
    } else others[rule >>> 5]! |= 1 << (rule & 31)
  })
  return found === 0 ? undefined : others
}

export function put<K>(filed: Map<K, Filed>, key: K, rule: number): void {
  const there = filed.get(key)
  if (there === undefined) filed.set(key, { rules: [rule], allowed: undefined })
  else if (there.rules[there.rules.length - 1] !== rule) there.rules.push(rule)
}

/** More rules than there are words of bits: then the bits are what is looked at. */
export function finish<K>(filed: Map<K, Filed>, others: Bits): void {
  for (const one of filed.values()) {
    if (one.rules.length <= others.length) continue
    one.allowed = others.slice()
    for (const rule of one.rules) one.allowed[rule >>> 5]! |= 1 << (rule & 31)
  }
}

export function add(found: Filed[], filed: Filed | undefined): void {
  if (filed !== undefined) found.push(filed)
}
