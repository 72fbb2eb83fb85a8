import assert from 'node:assert/strict'
import { after, before, mock, test } from 'node:test'
import { ByteBucket } from './byte-bucket.ts'
import { Pace } from './pace.ts'

before(() => mock.timers.enable({ apis: ['setTimeout'] }))
after(() => mock.timers.reset())

const RATE = { perSecond: 1_000_000, burst: 100_000 }

class Clock {
  now = 0
  later(work: () => void): void {
    work()
  }

  pass(ms: number): void {
    for (let i = 0; i < ms; i++) {
      this.now++
      mock.timers.tick(1)
    }
  }
}

/** A sender who always has more, read in pieces of `piece` bytes. */
class Bulk {
  bytes = 0
  readonly pace: Pace
  readonly #piece: number

  constructor(bucket: ByteBucket, piece = 65_536) {
    this.pace = new Pace(bucket, () => this.read())
    this.#piece = piece
  }

  read(): void {
    for (let room = this.pace.room(this.#piece); room > 0; room = this.pace.room(this.#piece)) {
      this.pace.spend(room)
      this.bytes += room
    }
  }
}

test('a burst at once, and then no more than the rate, however it is asked', () => {
  const clock = new Clock()
  const one = new Bulk(new ByteBucket(RATE, clock, 0))
  one.read()
  assert.equal(one.bytes, 100_000)
  for (let ms = 1; ms <= 3_000; ms++) {
    clock.pass(1)
    one.read() // an event each millisecond changes nothing
    assert.ok(one.bytes <= 100_000 + ms * 1_000, `${one.bytes} after ${ms} ms`)
  }
  assert.ok(one.bytes >= 100_000 + 3_000_000 - 20_000, `${one.bytes}`)
})

test('what is not used is kept up to the burst', () => {
  const clock = new Clock()
  const bucket = new ByteBucket(RATE, clock, 0)
  const one = new Bulk(bucket)
  one.read()
  one.pace.leave()
  clock.pass(60_000)
  assert.ok(bucket.isFull)
  one.read()
  assert.equal(one.bytes, 200_000)
})

test('a clock that stood still when the bucket was made gives nothing for the time before', () => {
  const clock = new Clock()
  const one = new Bulk(new ByteBucket(RATE, clock, 5_000))
  one.read()
  clock.pass(5_000)
  assert.equal(one.bytes, 100_000)
})

test('those who wait share evenly, also with one who began earlier and with a slow one; none is passed over', () => {
  const clock = new Clock()
  const bucket = new ByteBucket(RATE, clock, 0)
  const all = [new Bulk(bucket), new Bulk(bucket, 1_000), new Bulk(bucket), new Bulk(bucket)]
  for (const one of all) one.read()
  const before = all.map(({ bytes }) => bytes)
  clock.pass(4_000)
  const after = all.map(({ bytes }, i) => bytes - before[i]!)
  for (const bytes of after) assert.ok(bytes > 970_000 && bytes < 1_030_000, `${after}`)
})

test('more who wait than a turn has bytes for come in turn', () => {
  const clock = new Clock()
  const bucket = new ByteBucket({ perSecond: 10_000, burst: 100_000 }, clock, 0)
  const all = Array.from({ length: 50 }, () => new Bulk(bucket))
  for (const one of all) one.read()
  clock.pass(60_000)
  const bytes = all.slice(1).map((one) => one.bytes)
  assert.ok(Math.min(...bytes) >= 8_000 && Math.max(...bytes) <= 16_000, `${bytes}`)
})

test('one who leaves is not called, and the last one takes the timer along', () => {
  const clock = new Clock()
  const bucket = new ByteBucket(RATE, clock, 0)
  const [stays, leaves] = [new Bulk(bucket), new Bulk(bucket)]
  stays.read()
  leaves.read()
  leaves.pace.leave()
  clock.pass(100)
  assert.equal(leaves.bytes, 0)
  assert.ok(stays.bytes >= 180_000)
  stays.pace.leave()
  const { bytes } = stays
  clock.pass(1_000)
  assert.equal(stays.bytes, bytes)
})

test('datagrams pass whole or not at all, and are not starved by those who wait, nor starve them', () => {
  const clock = new Clock()
  const bucket = new ByteBucket(RATE, clock, 0)
  assert.equal(bucket.takeWhole(65_000, 65_000), 65_000)
  assert.equal(bucket.takeWhole(65_000, 65_000), 0)
  assert.equal(bucket.takeWhole(65_000, 1_400), 35_000)
  assert.equal(bucket.takeWhole(1, 1), 0)
  assert.equal(bucket.takeWhole(0, 0), 0)
  const bulk = new Bulk(bucket)
  bulk.read()
  let datagrams = 0
  for (let ms = 0; ms < 4_000; ms++) {
    clock.pass(1)
    for (let i = 0; i < 10; i++) datagrams += bucket.takeWhole(1_400, 1_400)
  }
  assert.ok(datagrams + bulk.bytes <= 4_000_000)
  assert.ok(Math.min(datagrams, bulk.bytes) > 1_000_000, `${datagrams} and ${bulk.bytes}`)
})

test('what was spent beyond what there was is waited for', () => {
  const clock = new Clock()
  const bucket = new ByteBucket(RATE, clock, 0)
  bucket.spend(300_000)
  const one = new Bulk(bucket)
  one.read()
  clock.pass(199)
  assert.equal(one.bytes, 0)
  clock.pass(40)
  assert.ok(one.bytes > 0)
})
