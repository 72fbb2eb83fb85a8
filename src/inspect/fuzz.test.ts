import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type FuzzSubject, fuzz, mutatedSample, probeOutcome, randomNumbers } from './fuzz.fixture.ts'
import { HANG_MS } from './fuzz-cost.fixture.ts'
import { fuzzSubjects } from './fuzz-subjects.fixture.ts'
import { match, more, NO } from './probe.ts'

const COUNT = 20_000 // npm run fuzz has more of them
const SEED = 20_260

for (const subject of fuzzSubjects()) {
  test(`${subject.name}: whatever the bytes, it neither throws nor takes long or much, and never takes back what it said`, () => {
    const { outcomes, slowest, heaviest } = fuzz(subject, COUNT, SEED)
    assert.ok(outcomes.size > 3, `outcomes: ${[...outcomes.keys()].join(', ')}`)
    assert.ok(slowest.ms < 5 * HANG_MS, `${slowest.ms} ms`) // whatever else the machine does
    assert.ok(heaviest.bytes < subject.mostBytes, `${heaviest.bytes} bytes`)
  })
}

test('a throw is told with its seed and input, and the same seed makes the same inputs', () => {
  const samples = [Uint8Array.of(1, 2, 3)]
  const throwing: FuzzSubject = {
    name: 'x',
    samples,
    parse: (bytes) => bytes[0],
    mostBytes: 1_000,
    read: (bytes) => {
      if (bytes[0] !== 1) throw new Error('ouch')
      return 'one'
    },
  }
  const told = (): string => {
    try {
      fuzz(throwing, 1000, 7)
    } catch (error) {
      return (error as Error).message
    }
    return 'nothing'
  }
  assert.match(told(), /^x: input \d+ of seed [78]: [0-9a-f]*$/)
  assert.equal(told(), told())
  assert.deepEqual(mutatedSample(samples, randomNumbers(5)), mutatedSample(samples, randomNumbers(5)))
})

test('a probe that takes back what it said with fewer bytes is found', () => {
  const bytes = new Uint8Array(8)
  assert.throws(() => probeOutcome((shown) => (shown.length < 8 ? NO : match(1)), bytes))
  assert.throws(() => probeOutcome((shown) => match(shown.length), bytes))
  assert.throws(() => probeOutcome((shown) => more(shown.length), bytes))
  assert.throws(() => probeOutcome((shown) => (shown.length < 8 ? more(9) : match(1)), bytes))
  assert.equal(
    probeOutcome((shown) => (shown.length < 8 ? more(8) : NO), bytes),
    'no',
  )
})
