import { type Family, familyOf, putAddress } from './address.ts'
import { networkOf, type Prefix } from './prefix.ts'

/**
 * A set of address prefixes that does not change; of those that hold an address the longest is found. PrefixSetBuilder makes it.
 *
 * Prefixes nest and never overlap otherwise, so that they cut the addresses into ranges each of which has one longest prefix. A range is
 * known by its first address and the length of that prefix; the prefix itself follows from any address of the range.
 */
export class PrefixSet {
  /** Prefixes, without repetitions. */
  readonly size: number
  /** Bytes of the arrays. */
  readonly bytes: number
  readonly #ipv4: Ranges
  readonly #ipv6: Ranges

  constructor(ipv4: Ranges, ipv6: Ranges) {
    this.#ipv4 = ipv4
    this.#ipv6 = ipv6
    this.size = ipv4.prefixes + ipv6.prefixes
    this.bytes = [ipv4, ipv6].reduce((sum, { starts, lengths }) => sum + starts.byteLength + lengths.byteLength, 0)
  }

  /** Whether a prefix holds it. `address` is an IP literal in canonical form. */
  has(address: string): boolean {
    return this.#lengthAt(address) !== NO_PREFIX
  }

  /** The longest prefix that holds it. */
  find(address: string): Prefix | undefined {
    const length = this.#lengthAt(address)
    if (length === NO_PREFIX) return undefined
    return { family: familyOf(address), address: networkOf(address, length), length }
  }

  #lengthAt(address: string): number {
    const ranges = address.includes(':') ? this.#ipv6 : this.#ipv4
    if (ranges.prefixes === 0) return NO_PREFIX
    putAddress(address, BYTES, 0)
    for (let word = 0; word < ranges.words; word++) WORDS[word] = VIEW.getUint32(word * 4)
    return ranges.lengths[lastNotAbove(ranges, WORDS)]!
  }
}

/** Ranges of one family, ascending; the first begins at address zero. */
interface Ranges {
  /** Words of 32 bits of an address, the first the highest: 1 for IPv4, 4 for IPv6. */
  readonly words: number
  readonly starts: Uint32Array
  /** Of the prefix that holds the range, or NO_PREFIX. */
  readonly lengths: Uint8Array
  readonly prefixes: number
}

const NO_PREFIX = 255
const BYTES = new Uint8Array(16)
const VIEW = new DataView(BYTES.buffer)
const WORDS = new Uint32Array(4)

function lastNotAbove(ranges: Ranges, address: Uint32Array): number {
  let low = 0
  let high = ranges.lengths.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (compareWords(ranges.starts, middle * ranges.words, address, 0, ranges.words) > 0) high = middle - 1
    else low = middle
  }
  return low
}

/** Collects prefixes into a PrefixSet. */
export class PrefixSetBuilder {
  readonly #families: Record<Family, Collected> = { 4: collected(1), 6: collected(4) }

  /** Prefixes that are there already are fine. */
  add(prefix: Prefix): void {
    const to = this.#families[prefix.family]
    const at = to.count * to.words
    if (at + to.words > to.networks.length) {
      to.networks = copied(to.networks, new Uint32Array(to.networks.length * 2))
      to.lengths = copied(to.lengths, new Uint8Array(to.lengths.length * 2))
    }
    putAddress(prefix.address, BYTES, 0)
    for (let word = 0; word < to.words; word++) to.networks[at + word] = VIEW.getUint32(word * 4)
    to.lengths[to.count++] = prefix.length
  }

  /** The set of what was added; the builder is not used after it. */
  build(): PrefixSet {
    const steps = this.steps()
    for (;;) {
      const { done, value } = steps.next()
      if (done) return value
    }
  }

  /** The same in steps of some milliseconds. */
  *steps(): Steps<PrefixSet> {
    return new PrefixSet(yield* rangesOf(this.#families[4]), yield* rangesOf(this.#families[6]))
  }
}

type Steps<T> = Generator<undefined, T, undefined>
const STEP_PREFIXES = 2_000 // less than a millisecond, some more before the code is compiled

interface Collected {
  readonly words: number
  networks: Uint32Array
  lengths: Uint8Array
  count: number
}

function collected(words: number): Collected {
  return { words, networks: new Uint32Array(64 * words), lengths: new Uint8Array(64), count: 0 }
}

function* rangesOf(collected: Collected): Steps<Ranges> {
  const order = yield* orderOf(collected)
  const walk = new Walk(collected)
  for (let from = 0; from < order.length; from += STEP_PREFIXES) {
    walk.go(order.subarray(from, from + STEP_PREFIXES))
    yield
  }
  return walk.ranges()
}

/** Goes through the prefixes by their first address, the wider first, and keeps those that are open: each stands in the one before. */
class Walk {
  readonly #from: Collected
  readonly #into: RangeWriter
  readonly #zero: Uint32Array
  /** First address behind each open prefix, and their lengths. */
  readonly #ends: Uint32Array[] = []
  readonly #open: number[] = []
  #prefixes = 0
  #before = -1

  constructor(from: Collected) {
    this.#from = from
    this.#into = new RangeWriter(from.words, 2 * from.count + 1) // each prefix begins one range, and another behind it
    this.#zero = new Uint32Array(from.words)
    this.#into.write(this.#zero, 0, NO_PREFIX)
  }

  go(order: Uint32Array): void {
    const { words, networks, lengths } = this.#from
    for (let i = 0; i < order.length; i++) {
      const index = order[i]!
      const at = index * words
      const length = lengths[index]!
      if (this.#isRepeated(at, length)) continue
      this.#before = index
      this.#prefixes++
      this.#closeUntil(at)
      this.#ends[this.#open.length] ??= new Uint32Array(words)
      putEnd(networks, at, length, this.#ends[this.#open.length]!)
      this.#open.push(length)
      this.#into.write(networks, at, length)
    }
  }

  ranges(): Ranges {
    this.#closeUntil(-1)
    return { words: this.#from.words, ...this.#into.taken(), prefixes: this.#prefixes }
  }

  #isRepeated(at: number, length: number): boolean {
    const { words, networks, lengths } = this.#from
    if (this.#before < 0 || lengths[this.#before] !== length) return false
    return compareWords(networks, at, networks, this.#before * words, words) === 0
  }

  /** Closes the prefixes that end before the network at `at`, or all when that is -1. */
  #closeUntil(at: number): void {
    const { words, networks } = this.#from
    while (this.#open.length > 0) {
      const end = this.#ends[this.#open.length - 1]!
      const isLast = compareWords(end, 0, this.#zero, 0, words) === 0 // it wrapped: the prefix ends where the addresses end
      if (at >= 0 && (isLast || compareWords(end, 0, networks, at, words) > 0)) return
      this.#open.pop()
      if (!isLast) this.#into.write(end, 0, this.#open[this.#open.length - 1] ?? NO_PREFIX)
    }
  }
}

/** Ranges in their order; of two that begin at one address the later one counts, and neighbours of one length are one. */
class RangeWriter {
  readonly #words: number
  readonly #starts: Uint32Array
  readonly #lengths: Uint8Array
  #count = 0

  constructor(words: number, most: number) {
    this.#words = words
    this.#starts = new Uint32Array(most * words)
    this.#lengths = new Uint8Array(most)
  }

  write(start: Uint32Array, at: number, length: number): void {
    const words = this.#words
    const last = this.#count - 1
    if (last >= 0 && compareWords(this.#starts, last * words, start, at, words) === 0) this.#count = last
    if (this.#count > 0 && this.#lengths[this.#count - 1] === length) return
    for (let word = 0; word < words; word++) this.#starts[this.#count * words + word] = start[at + word]!
    this.#lengths[this.#count++] = length
  }

  taken(): { starts: Uint32Array; lengths: Uint8Array } {
    return { starts: this.#starts.slice(0, this.#count * this.#words), lengths: this.#lengths.slice(0, this.#count) }
  }
}

/** Writes the first address behind a prefix; zero behind the last one. */
function putEnd(networks: Uint32Array, at: number, length: number, end: Uint32Array): void {
  for (let word = 0; word < end.length; word++) end[word] = networks[at + word]!
  if (length === 0) return // the end is the start, zero
  let word = (length - 1) >> 5
  let sum = end[word]! + 2 ** (31 - ((length - 1) & 31))
  end[word] = sum
  while (sum > 0xffffffff && word > 0) {
    sum = end[--word]! + 1
    end[word] = sum
  }
}

const FEW = 1_000 // the places of a radix sort cost as much as to compare so many: a policy has a set for each rule

/** The numbers of the prefixes by network, then by length: a radix sort by 16 bits, from the lowest digit on, which calls nothing. */
function* orderOf(collected: Collected): Steps<Uint32Array> {
  let order = new Uint32Array(collected.count)
  for (let index = 0; index < order.length; index++) order[index] = index
  if (order.length < FEW) {
    const { words, networks, lengths } = collected
    return order.sort(
      (a, b) => compareWords(networks, a * words, networks, b * words, words) || lengths[a]! - lengths[b]!,
    )
  }
  let next = new Uint32Array(order.length)
  for (let digit = 0; digit <= 2 * collected.words; digit++) {
    sortByDigit(collected, digit, order, next)
    ;[order, next] = [next, order]
    yield
  }
  return order
}

/** Digit 0 is the length, 1 the last 16 bits of the network, and so on. */
function sortByDigit(
  { words, networks, lengths }: Collected,
  digit: number,
  order: Uint32Array,
  next: Uint32Array,
): void {
  const word = words - ((digit + 1) >> 1)
  const shift = digit & 1 ? 0 : 16
  const digitOf = (index: number): number =>
    digit === 0 ? lengths[index]! : (networks[index * words + word]! >>> shift) & 0xffff
  const places = new Uint32Array(0x10000 + 1)
  for (let i = 0; i < order.length; i++) places[digitOf(i) + 1]!++
  for (let value = 0; value < 0x10000; value++) places[value + 1]! += places[value]!
  for (let i = 0; i < order.length; i++) next[places[digitOf(order[i]!)]!++] = order[i]!
}

function compareWords(a: Uint32Array, aAt: number, b: Uint32Array, bAt: number, words: number): number {
  for (let word = 0; word < words; word++) {
    const difference = a[aAt + word]! - b[bAt + word]!
    if (difference !== 0) return difference
  }
  return 0
}

function copied<T extends Uint32Array | Uint8Array>(from: T, to: T): T {
  to.set(from)
  return to
}
