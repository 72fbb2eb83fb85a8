import type { PolicyMatch } from '../config/policy-types.ts'
import { familyOf, putAddress } from '../net/address.ts'
import { parseNameEntry } from '../net/name-entry.ts'
import type { PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { FlowFacts } from './facts.ts'

/** A range of more ports is not looked up by each of them: its rule is asked itself. */
const MOST_PORTS = 64

/** Numbers of rules, one bit each. */
type Bits = Uint32Array

/** One thing that many rules ask about: which of them a flow's answer leaves in. */
interface Dimension {
  /** Rules that do not ask about it, or not in a way that can be looked up. */
  readonly others: Bits
  /** Sets the bits of those that ask, and may get a yes. False: nothing is known yet, and all stay in. */
  mark(facts: FlowFacts, bits: Bits): boolean
}

/**
 * Finds the rules of a policy that may match a flow: by its ports, addresses and name, so that of ten thousand rules a handful is asked. Who
 * is left out would have answered no; who is left in is to be asked.
 */
export class RuleIndex {
  readonly #words: number
  readonly #dimensions: readonly Dimension[]
  readonly #all: Bits
  readonly #left: Bits
  readonly #marked: Bits

  constructor(matches: readonly PolicyMatch[]) {
    this.#words = (matches.length + 31) >>> 5
    this.#left = new Uint32Array(this.#words)
    this.#marked = new Uint32Array(this.#words)
    this.#dimensions = [
      portDimension(matches, this.#words),
      prefixDimension(
        matches,
        this.#words,
        ({ sources }) => sources,
        ({ client }) => client.address,
      ),
      prefixDimension(
        matches,
        this.#words,
        ({ destinations }) => destinations,
        ({ originalDst }) => originalDst.address,
      ),
      textDimension(
        matches,
        this.#words,
        ({ interfaces }) => (interfaces.some((one) => one.endsWith('*')) ? [] : interfaces), // patterns are asked themselves
        ({ link }) => link?.interface,
      ),
      textDimension(
        matches,
        this.#words,
        ({ macs }) => macs,
        ({ link }) => link?.mac,
      ),
      hostDimension(matches, this.#words),
    ].filter((dimension) => dimension !== undefined)
    // behind the last rule there is none
    const rest = matches.length & 31
    this.#all = new Uint32Array(this.#words).fill(0xffff_ffff)
    if (rest !== 0) this.#all[this.#words - 1] = 2 ** rest - 1
  }

  /** Begins with a flow: next() finds its rules. */
  narrow(facts: FlowFacts): void {
    const [left, marked, words] = [this.#left, this.#marked, this.#words]
    left.set(this.#all)
    for (const dimension of this.#dimensions) {
      marked.set(dimension.others)
      if (!dimension.mark(facts, marked)) continue
      for (let i = 0; i < words; i++) left[i]! &= marked[i]!
    }
  }

  /** The number of the first rule from `from` on that may match; -1 when there is none. */
  next(from: number): number {
    for (let word = from >>> 5, mask = -1 << (from & 31); word < this.#words; word++, mask = -1) {
      const bits = this.#left[word]! & mask
      if (bits !== 0) return (word << 5) + 31 - Math.clz32(bits & -bits)
    }
    return -1
  }
}

function portDimension(matches: readonly PolicyMatch[], words: number): Dimension | undefined {
  const rules = new Map<number, number[]>()
  const isFound = ({ ports }: PolicyMatch) => ports.length > 0 && countOf(ports) <= MOST_PORTS
  const others = othersOf(matches, words, isFound, ({ ports }, rule) => {
    for (const { from, to } of ports) for (let port = from; port <= to; port++) put(rules, port, rule)
  })
  return others && { others, mark: ({ originalDst }, bits) => markAll(bits, rules.get(originalDst.port)) }
}

function countOf(ports: readonly PortRange[]): number {
  return ports.reduce((sum, { from, to }) => sum + to - from + 1, 0)
}

/** A prefix is found by its length, and the bits of the address that it fixes. */
function prefixDimension(
  matches: readonly PolicyMatch[],
  words: number,
  prefixesOf: (match: PolicyMatch) => readonly Prefix[],
  addressOf: (facts: FlowFacts) => string,
): Dimension | undefined {
  const rules = { 4: new Map<number, Map<string, number[]>>(), 6: new Map<number, Map<string, number[]>>() }
  const others = othersOf(
    matches,
    words,
    (match) => prefixesOf(match).length > 0,
    (match, rule) => {
      for (const { family, address, length } of prefixesOf(match)) {
        const ofLength = rules[family].get(length) ?? new Map<string, number[]>()
        rules[family].set(length, ofLength)
        put(ofLength, networkKey(address, length), rule)
      }
    },
  )
  const mark = (facts: FlowFacts, bits: Bits) => {
    const address = addressOf(facts)
    for (const [length, ofLength] of rules[familyOf(address)]) markAll(bits, ofLength.get(networkKey(address, length)))
    return true
  }
  return others && { others, mark }
}

const BYTES = new Uint8Array(16)

function networkKey(address: string, length: number): string {
  putAddress(address, BYTES, 0)
  let key = ''
  for (let at = 0, left = length; left > 0; at++, left -= 8) {
    key += String.fromCharCode(left >= 8 ? BYTES[at]! : BYTES[at]! & (0xff00 >> left))
  }
  return key
}

/** By one text that a flow has, or has not. */
function textDimension(
  matches: readonly PolicyMatch[],
  words: number,
  textsOf: (match: PolicyMatch) => readonly string[],
  textOf: (facts: FlowFacts) => string | undefined,
): Dimension | undefined {
  const rules = new Map<string, number[]>()
  const others = othersOf(
    matches,
    words,
    (match) => textsOf(match).length > 0,
    (match, rule) => {
      for (const text of textsOf(match)) put(rules, text, rule)
    },
  )
  const mark = (facts: FlowFacts, bits: Bits) => {
    const text = textOf(facts)
    return markAll(bits, text === undefined ? undefined : rules.get(text))
  }
  return others && { others, mark }
}

/** By the text of an entry: of the name itself, and of all that it is below. Patterns are asked themselves. */
function hostDimension(matches: readonly PolicyMatch[], words: number): Dimension | undefined {
  const rules = new Map<string, number[]>()
  const isFound = ({ hosts }: PolicyMatch) => hosts.length > 0 && hosts.every((text) => keyOf(text) !== undefined)
  const others = othersOf(matches, words, isFound, ({ hosts }, rule) => {
    for (const text of hosts) put(rules, keyOf(text)!, rule)
  })
  const markName = (name: string, bits: Bits) => {
    markAll(bits, rules.get(name))
    markAll(bits, rules.get(`.${name}`))
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const above = name.slice(dot)
      markAll(bits, rules.get(above))
      markAll(bits, rules.get(`*${above}`))
    }
  }
  const mark = ({ finding, learntNames }: FlowFacts, bits: Bits) => {
    if (finding === undefined) return false
    for (const name of finding.host === undefined ? learntNames : [finding.host]) markName(name, bits)
    return true
  }
  return others && { others, mark }
}

/** `www.example.org`, `.example.org` or `*.example.org`; undefined for a pattern. */
function keyOf(text: string): string | undefined {
  const entry = parseNameEntry(text)
  if (entry === undefined || entry.kind === 'pattern') return undefined
  return `${{ exact: '', suffix: '.', below: '*.' }[entry.kind]}${entry.name}`
}

/** Files the rules that can be found, and has the bits of the others; undefined when none can. */
function othersOf(
  matches: readonly PolicyMatch[],
  words: number,
  isFound: (match: PolicyMatch) => boolean,
  file: (match: PolicyMatch, rule: number) => void,
): Bits | undefined {
  const others = new Uint32Array(words)
  let found = 0
  matches.forEach((match, rule) => {
    if (isFound(match)) {
      found++
      file(match, rule)
    } else others[rule >>> 5]! |= 1 << (rule & 31)
  })
  return found === 0 ? undefined : others
}

function put<K>(rules: Map<K, number[]>, key: K, rule: number): void {
  const there = rules.get(key)
  if (there === undefined) rules.set(key, [rule])
  else if (there[there.length - 1] !== rule) there.push(rule)
}

function markAll(bits: Bits, rules: readonly number[] | undefined): boolean {
  if (rules !== undefined) for (const rule of rules) bits[rule >>> 5]! |= 1 << (rule & 31)
  return true
}
