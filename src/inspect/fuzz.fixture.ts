import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import { type Cost, costOf, heldBytes, leastCost } from './fuzz-cost.fixture.ts'
import type { Probed } from './probe.ts'

/** A parser under fuzz. */
export interface FuzzSubject<Answer = unknown> {
  readonly name: string
  /** Good inputs, from which the others are made. */
  readonly samples: readonly Uint8Array[]
  /** The parser alone, as the product asks it: what is timed and weighed. */
  parse(bytes: Uint8Array): Answer
  /** The most bytes that one parse may allocate, whatever the input. */
  readonly mostBytes: number
  /** What the parser made of it, in a word or two; throws when it broke a promise. Must not change the bytes. */
  read(bytes: Uint8Array, answer: Answer): string
}

/** What a subject says of one input. */
export function outcomeOf<Answer>(subject: FuzzSubject<Answer>, bytes: Uint8Array): string {
  return subject.read(bytes, subject.parse(bytes))
}

export interface FuzzReport {
  readonly outcomes: ReadonlyMap<string, number>
  /** The most that any parse took: of the same input, the least of many times. */
  readonly slowest: Extreme
  readonly heaviest: Extreme
  /** What the heap held more at the end than after a tenth: a leak would grow with the inputs. */
  readonly keptBytes: number
}

export interface Extreme extends Cost {
  readonly input: Uint8Array
}

export type RandomNumbers = (below: number) => number

/** xorshift32: the same inputs for the same seed. */
export function randomNumbers(seed: number): RandomNumbers {
  let state = seed | 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

const MAX_INPUT_BYTES = 20_000 // beyond what any parser looks at
const MAX_CHANGES = 6
const EDGES = [0, 1, 63, 64, 127, 128, 192, 255] // where lengths and their encodings turn
const UPPER_BYTES = [0, 1, 0xc0, 0xff] // of lengths of two bytes, and of DNS pointers
const TOKENS = [
  ...[
    '\r\n',
    '\n',
    '\r',
    '\0',
    ' ',
    '\t',
    ':',
    ',',
    '@',
    '%41',
    '/',
    '#',
    '?',
    '\r\n\r\n',
    '\r\n ',
    '0',
    '65536',
    '-1',
  ],
  ...['HTTP/1.1', 'HTTP/1.0', 'http://a.example', 'CONNECT ', 'OPTIONS * ', '[::1]', '10.0.0.1', '.', 'É'],
  ...['\r\nHost: b.example', '\r\nTransfer-Encoding: chunked', '\r\nContent-Length: 5', 'chunked', 'UNKNOWN', 'TCP6 '],
].map((text) => Buffer.from(text, 'latin1'))
const WARM_UP = 3_000 // inputs before those that are timed: until the code is compiled

/** One of the samples with up to five changes. */
export function mutatedSample(
  samples: readonly Uint8Array[],
  random: RandomNumbers,
  maxBytes = MAX_INPUT_BYTES,
): Uint8Array {
  let bytes: Uint8Array = Uint8Array.from(samples[random(samples.length)]!)
  for (let changes = random(MAX_CHANGES); changes > 0 && bytes.length > 0; changes--) {
    const other = samples[random(samples.length)]!
    bytes = CHANGES[random(CHANGES.length)]!(bytes, random(bytes.length), random, other).subarray(0, maxBytes)
  }
  return Uint8Array.from(bytes) // owns all of its buffer
}

type Change = (bytes: Uint8Array, at: number, random: RandomNumbers, other: Uint8Array) => Uint8Array

const CHANGES: readonly Change[] = [
  (bytes, at, random) => put(bytes, at, [random(256)]),
  (bytes, at, random) => put(bytes, at, [bytes[at]! ^ (1 << random(8))]),
  (bytes, at, random) => put(bytes, at, [EDGES[random(EDGES.length)]!]),
  (bytes, at, random) => put(bytes, at, [UPPER_BYTES[random(UPPER_BYTES.length)]!, random(256)]),
  (bytes, at) => bytes.subarray(0, at),
  (bytes, at, random) => joined(bytes.subarray(0, at), bytes.subarray(at + 1 + random(8))),
  (bytes, at, random) => joined(bytes.subarray(0, at), bytes.subarray(random(at + 1))),
  (bytes, at, random) => repeated(bytes, at, 1 + random(16), 2 ** random(10)),
  (bytes, at, random, other) => joined(bytes.subarray(0, at), other.subarray(random(other.length))),
  (bytes, at, random) => joined(bytes.subarray(0, at), TOKENS[random(TOKENS.length)]!, bytes.subarray(at)),
  (bytes, at, random) => put(bytes, at, [...TOKENS[random(TOKENS.length)]!]),
]

function put(bytes: Uint8Array, at: number, values: readonly number[]): Uint8Array {
  bytes.set(values.slice(0, bytes.length - at), at)
  return bytes
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

function repeated(bytes: Uint8Array, at: number, length: number, times: number): Uint8Array {
  const part = bytes.subarray(at, at + length)
  return joined(bytes.subarray(0, at), ...Array.from({ length: times }, () => part), bytes.subarray(at))
}

/** Reads `count` mutated samples, and counts what became of them. Throws with the input when one throws, or is changed. */
export function fuzz(subject: FuzzSubject, count: number, seed: number): FuzzReport {
  readMutated(subject, WARM_UP, seed + 1)
  return readMutated(subject, count, seed)
}

function readMutated(subject: FuzzSubject, count: number, seed: number): FuzzReport {
  const random = randomNumbers(seed)
  const outcomes = new Map<string, number>()
  let slowest: Extreme = { ms: 0, bytes: 0, input: new Uint8Array() }
  let heaviest = slowest
  let heldAtFirst = 0
  for (let i = 0; i < count; i++) {
    if (i === Math.floor(count / 10)) heldAtFirst = heldBytes()
    const input = mutatedSample(subject.samples, random)
    const bytes = input.slice()
    let answer: unknown
    const parse = (): void => {
      answer = subject.parse(bytes)
    }
    try {
      let cost = costOf(parse)
      if (!(cost.ms <= slowest.ms && cost.bytes <= heaviest.bytes)) cost = leastCost(parse, cost)
      if (cost.ms > slowest.ms) slowest = { ...cost, input }
      if (cost.bytes > heaviest.bytes) heaviest = { ...cost, input }
      const outcome = subject.read(bytes, answer)
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      assert.ok(Buffer.compare(bytes, input) === 0, 'the bytes were changed')
    } catch (cause) {
      const hex = Buffer.from(input).toString('hex')
      throw new Error(`${subject.name}: input ${i} of seed ${seed}: ${hex}`, { cause })
    }
  }
  return { outcomes, slowest, heaviest, keptBytes: heldBytes() - heldAtFirst }
}

/**
 * What a probe answered to `bytes`. Throws when it answers otherwise to some of them: with fewer bytes it may say `more`, and if it says
 * anything else, then the same as with all.
 */
export function probeOutcome<Finding>(
  probe: (bytes: Uint8Array) => Probed<Finding>,
  bytes: Uint8Array,
  answer: Probed<Finding> = probe(bytes),
): string {
  if (answer.kind === 'more')
    assert.ok(answer.atLeast > bytes.length, `asks for ${answer.atLeast} of ${bytes.length} bytes`)
  for (const length of [0, 1, bytes.length >> 2, bytes.length >> 1, bytes.length - 7, bytes.length - 1]) {
    if (length >= 0 && length < bytes.length)
      assertPrefix(answer, probe(bytes.subarray(0, length)), length, bytes.length)
  }
  return answer.kind === 'malformed' ? answer.why : answer.kind
}

function assertPrefix<Finding>(answer: Probed<Finding>, before: Probed<Finding>, length: number, all: number): void {
  if (before.kind !== 'more') {
    assert.ok(isDeepStrictEqual(answer, before), `${before.kind} of ${length} bytes, ${answer.kind} of ${all}`)
    return
  }
  assert.ok(before.atLeast > length, `asks for ${before.atLeast} of ${length} bytes`)
  // that it is not the protocol may turn out earlier
  assert.ok(answer.kind !== 'match' || before.atLeast <= all, `asks for ${before.atLeast}, matches with ${all} bytes`)
}
