import type { PolicyMatch } from '../config/policy-types.ts'
import { type Family, familyOf, putAddress } from '../net/address.ts'
import { parseNameEntry } from '../net/name-entry.ts'
import type { PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { FlowFacts } from './facts.ts'
import { add, type Bits, Dimension, type Filed, finish, othersOf, put } from './rule-dimension.ts'

/** A range of more ports is not looked up by each of them: its rule is asked itself. */
const MOST_PORTS = 64

/**
 * Finds the rules of a policy that may match a flow: by its ports, addresses and name, so that of ten thousand rules a handful is asked. Who
 * is left out would have answered no; who is left in is to be asked, unless isCertain() says that all that it asks was looked up: what a
 * rule asks lies scattered in memory, so that asking it takes longer than finding it.
 *
 * Where little is filed under what a flow has, each of these rules is looked at by itself; the bits of the rules that do not ask about any of
 * this are kept ready. So a flow whose port is that of many rules, and whose name is that of one, costs one pass over the bits.
 */
export class RuleIndex {
  readonly #words: number
  readonly #dimensions: readonly Dimension[]
  /** What is left of the rules for a flow: those in both of these … */
  #base: Bits
  #many: Bits
  /** … and the few that were found by themselves, which `#singleRules` has, too. */
  readonly #singles: Bits
  readonly #singleRules: number[] = []
  readonly #scratch: Bits
  /** Rules of which everything is looked up. */
  readonly #whole: Bits
  /** Everything that is looked up was known of the flow. */
  #knowsAll = false
  /** By the dimensions (a bit each) in which little was found: rules that ask about none of them. */
  readonly #bases: Bits[] = []

  constructor(matches: readonly PolicyMatch[]) {
    this.#words = (matches.length + 31) >>> 5
    this.#singles = new Uint32Array(this.#words)
    this.#scratch = new Uint32Array(this.#words)
    this.#dimensions = [
      portDimension(matches),
      prefixDimension(
        matches,
        ({ sources }) => sources,
        ({ client }) => client.address,
      ),
      prefixDimension(
        matches,
        ({ destinations }) => destinations,
        ({ originalDst }) => originalDst.address,
      ),
      textDimension(
        matches,
        ({ interfaces }) => (interfaces.some((one) => one.endsWith('*')) ? [] : interfaces), // patterns are asked themselves
        ({ link }) => link?.interface,
      ),
      textDimension(
        matches,
        ({ macs }) => macs,
        ({ link }) => link?.mac,
      ),
      hostDimension(matches),
    ].filter((dimension) => dimension !== undefined)
    this.#whole = this.#wholeOf(matches)
    // behind the last rule there is none
    const all = new Uint32Array(this.#words).fill(0xffff_ffff)
    const rest = matches.length & 31
    if (rest !== 0) all[this.#words - 1] = 2 ** rest - 1
    this.#bases[0] = this.#base = this.#many = all
  }

  /** Begins with a flow: next() finds its rules. */
  narrow(facts: FlowFacts): void {
    let few = 0
    this.#knowsAll = true
    for (let i = 0; i < this.#dimensions.length; i++) {
      const result = this.#dimensions[i]!.look(facts)
      if (result === 'few') few |= 1 << i
      else if (result === 'all') this.#knowsAll = false
    }
    this.#base = this.#baseOf(few)
    this.#many = this.#manyAllowed() ?? this.#base
    while (this.#singleRules.length > 0) this.#singles[this.#singleRules.pop()! >>> 5] = 0
    for (const { result, rules } of this.#dimensions) {
      if (result !== 'few') continue
      for (const rule of rules) if (this.#isAllowed(rule)) this.#addSingle(rule)
    }
  }

  #addSingle(rule: number): void {
    this.#singleRules.push(rule)
    this.#singles[rule >>> 5]! |= 1 << (rule & 31)
  }

  /** The bits of all dimensions in which many were found; undefined when there is none. */
  #manyAllowed(): Bits | undefined {
    let many: Bits | undefined
    for (const { result, allowed } of this.#dimensions) {
      if (result !== 'many') continue
      if (many === undefined) many = allowed
      else {
        if (many !== this.#scratch) this.#scratch.set(many)
        many = this.#scratch
        for (let i = 0; i < many.length; i++) many[i]! &= allowed[i]!
      }
    }
    return many
  }

  /** The number of the first rule from `from` on that may match; -1 when there is none. */
  next(from: number): number {
    const base = this.#base
    const many = this.#many
    const singles = this.#singles
    for (let word = from >>> 5, mask = -1 << (from & 31); word < base.length; word++, mask = -1) {
      const bits = ((base[word]! & many[word]!) | singles[word]!) & mask
      if (bits !== 0) return (word << 5) + 31 - Math.clz32(bits & -bits)
    }
    return -1
  }

  /** Whether a rule that next() has found would answer yes. */
  isCertain(rule: number): boolean {
    return this.#knowsAll && (this.#whole[rule >>> 5]! & (1 << (rule & 31))) !== 0
  }

  #wholeOf(matches: readonly PolicyMatch[]): Bits {
    const whole = new Uint32Array(this.#words)
    matches.forEach((match, rule) => {
      const asked = Object.values(match).filter((wanted: readonly unknown[]) => wanted.length > 0).length
      const lookedUp = this.#dimensions.filter((dimension) => dimension.has(rule)).length
      if (asked === lookedUp) whole[rule >>> 5]! |= 1 << (rule & 31)
    })
    return whole
  }

  #isAllowed(rule: number): boolean {
    for (const dimension of this.#dimensions) if (!dimension.allows(rule)) return false
    return true
  }

  #baseOf(few: number): Bits {
    const known = this.#bases[few]
    if (known !== undefined) return known
    const base = this.#bases[0]!.slice()
    this.#dimensions.forEach(({ others }, i) => {
      if ((few & (1 << i)) !== 0) for (let word = 0; word < base.length; word++) base[word]! &= others[word]!
    })
    this.#bases[few] = base
    return base
  }
}

function portDimension(matches: readonly PolicyMatch[]): Dimension | undefined {
  const filed = new Map<number, Filed>()
  const isFound = ({ ports }: PolicyMatch) => ports.length > 0 && countOf(ports) <= MOST_PORTS
  const others = othersOf(matches, isFound, ({ ports }, rule) => {
    for (const { from, to } of ports) for (let port = from; port <= to; port++) put(filed, port, rule)
  })
  if (others === undefined) return undefined
  finish(filed, others)
  return new Dimension(others, ({ originalDst }, found) => {
    add(found, filed.get(originalDst.port))
    return true
  })
}

function countOf(ports: readonly PortRange[]): number {
  return ports.reduce((sum, { from, to }) => sum + to - from + 1, 0)
}

/** A prefix is found by its length, and the bits of the address that it fixes. */
function prefixDimension(
  matches: readonly PolicyMatch[],
  prefixesOf: (match: PolicyMatch) => readonly Prefix[],
  addressOf: (facts: FlowFacts) => string,
): Dimension | undefined {
  const filed = { 4: new Map<number, Map<number | string, Filed>>(), 6: new Map<number, Map<number | string, Filed>>() }
  const others = othersOf(
    matches,
    (match) => prefixesOf(match).length > 0,
    (match, rule) => {
      for (const { family, address, length } of prefixesOf(match)) {
        const ofLength = filed[family].get(length) ?? new Map<number | string, Filed>()
        filed[family].set(length, ofLength)
        putAddress(address, BYTES, 0)
        put(ofLength, networkKey(family, length), rule)
      }
    },
  )
  if (others === undefined) return undefined
  for (const ofLength of [...filed[4].values(), ...filed[6].values()]) finish(ofLength, others)
  return new Dimension(others, (facts, found) => {
    const address = addressOf(facts)
    const family = familyOf(address)
    putAddress(address, BYTES, 0)
    for (const [length, ofLength] of filed[family]) add(found, ofLength.get(networkKey(family, length)))
    return true
  })
}

const BYTES = new Uint8Array(16)

/** Of the address in BYTES. */
function networkKey(family: Family, length: number): number | string {
  if (family === 4) {
    const bits = (BYTES[0]! << 24) | (BYTES[1]! << 16) | (BYTES[2]! << 8) | BYTES[3]!
    return length === 0 ? 0 : bits >>> (32 - length)
  }
  let key = ''
  for (let at = 0, left = length; left > 0; at++, left -= 8) {
    key += String.fromCharCode(left >= 8 ? BYTES[at]! : BYTES[at]! & (0xff00 >> left))
  }
  return key
}

/** By one text that a flow has, or has not. */
function textDimension(
  matches: readonly PolicyMatch[],
  textsOf: (match: PolicyMatch) => readonly string[],
  textOf: (facts: FlowFacts) => string | undefined,
): Dimension | undefined {
  const filed = new Map<string, Filed>()
  const others = othersOf(
    matches,
    (match) => textsOf(match).length > 0,
    (match, rule) => {
      for (const text of textsOf(match)) put(filed, text, rule)
    },
  )
  if (others === undefined) return undefined
  finish(filed, others)
  return new Dimension(others, (facts, found) => {
    const text = textOf(facts)
    if (text !== undefined) add(found, filed.get(text))
    return true
  })
}

/** By the name of an entry, that of the flow or one that it is below. Patterns are asked themselves. */
function hostDimension(matches: readonly PolicyMatch[]): Dimension | undefined {
  const filed = { exact: new Map<string, Filed>(), suffix: new Map<string, Filed>(), below: new Map<string, Filed>() }
  const entriesOf = ({ hosts }: PolicyMatch) => hosts.map(parseNameEntry)
  const isFound = (match: PolicyMatch) =>
    match.hosts.length > 0 && entriesOf(match).every((entry) => entry !== undefined && entry.kind !== 'pattern')
  const others = othersOf(matches, isFound, (match, rule) => {
    for (const entry of entriesOf(match))
      if (entry !== undefined && entry.kind !== 'pattern') put(filed[entry.kind], entry.name, rule)
  })
  if (others === undefined) return undefined
  for (const ofKind of Object.values(filed)) finish(ofKind, others)
  const findName = (name: string, found: Filed[]) => {
    add(found, filed.exact.get(name))
    add(found, filed.suffix.get(name))
    if (filed.suffix.size === 0 && filed.below.size === 0) return
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const above = name.slice(dot + 1)
      add(found, filed.suffix.get(above))
      add(found, filed.below.get(above))
    }
  }
  return new Dimension(others, ({ finding, learntNames }, found) => {
    if (finding === undefined) return false
    if (finding.host !== undefined) findName(finding.host, found)
    else for (const name of learntNames) findName(name, found)
    return true
  })
}
