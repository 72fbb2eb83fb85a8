import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AddressAnswer, HostAddresses } from './host-addresses.ts'
import type { FoundAddress, NameLookup } from './name-lookup.ts'

const ONE = '192.0.2.1'
const OTHER = '192.0.2.2'

/** Name servers whose answers the test gives, and a clock that it sets. */
class Servers implements NameLookup {
  readonly asked: { readonly name: string; done(found: readonly FoundAddress[] | undefined): void }[] = []
  isClosed = false
  now = 0
  readonly addresses = new HostAddresses(this, () => this.now)

  ask(name: string, family: number, done: (found: readonly FoundAddress[] | undefined) => void): void {
    this.asked.push({ name: `${name} ${family}`, done })
  }

  close(): void {
    this.isClosed = true
  }

  /** What is told by the end of the test. */
  answersOf(name: string, address: string): AddressAnswer[] {
    const told: AddressAnswer[] = []
    this.addresses.ask(name, address, (answer) => told.push(answer))
    return told
  }
}

const found = (ttlSeconds: number, ...addresses: readonly string[]): FoundAddress[] =>
  addresses.map((address) => ({ address, ttlSeconds }))

test('many who ask for a name at once are one question, and each hears of its address', () => {
  const servers = new Servers()
  const [one, again, other] = [ONE, ONE, OTHER].map((address) => servers.answersOf('a.example', address))
  const six = servers.answersOf('a.example', '2001:db8::1')
  assert.deepEqual(
    servers.asked.map(({ name }) => name),
    ['a.example 4', 'a.example 6'],
  )
  servers.asked[0]!.done(found(60, ONE))
  assert.deepEqual([one, again, other, six], [['resolved'], ['resolved'], ['mismatch'], []])
  servers.asked[1]!.done([])
  assert.deepEqual(six, ['mismatch'])
})

test('an answer counts for its TTL, for a minute at the least and an hour at the most', () => {
  for (const [ttl, counts, counts_not] of [
    [0, 59_999, 60_001],
    [600, 599_999, 600_001],
    [1e9, 3_599_999, 3_600_001],
  ] as const) {
    const servers = new Servers()
    servers.answersOf('a.example', ONE)
    servers.asked[0]!.done(found(ttl, ONE))
    servers.now = counts
    assert.deepEqual(servers.answersOf('a.example', ONE), ['resolved'])
    servers.now = counts_not
    assert.deepEqual(servers.answersOf('a.example', ONE), [])
    assert.equal(servers.asked.length, 2)
    servers.addresses.close()
  }
})

test('addresses of answers that rotate add up, and one that was in none is asked for again at most each second', () => {
  const servers = new Servers()
  servers.answersOf('a.example', ONE)
  servers.asked[0]!.done(found(1, ONE))
  assert.deepEqual(servers.answersOf('a.example', OTHER), ['mismatch'])
  servers.now = 1_000
  const other = servers.answersOf('a.example', OTHER)
  servers.asked[1]!.done(found(1, OTHER))
  assert.deepEqual(other, ['resolved'])
  assert.deepEqual(servers.answersOf('a.example', ONE), ['resolved'])
  assert.equal(servers.asked.length, 2)
})

test('no answer is no mismatch, and is asked for again a second later', () => {
  const servers = new Servers()
  const told = servers.answersOf('a.example', ONE)
  servers.asked[0]!.done(undefined)
  assert.deepEqual(told, ['unresolved'])
  assert.deepEqual(servers.answersOf('a.example', ONE), ['unresolved'])
  servers.now = 1_000
  const later = servers.answersOf('a.example', ONE)
  servers.asked[1]!.done(found(1, ONE))
  assert.deepEqual(later, ['resolved'])
})

test('who waits is told at the deadline, and what is answered after it changes nothing', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const servers = new Servers()
  const told = servers.answersOf('a.example', ONE)
  t.mock.timers.tick(3_000)
  servers.asked[0]!.done(found(60, ONE))
  assert.deepEqual(told, ['unresolved'])
  assert.deepEqual(servers.answersOf('a.example', ONE), ['unresolved'])
})

test('256 lookups at once, also of those that are late; more are not asked for', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const servers = new Servers()
  for (let i = 0; i < 256; i++) servers.answersOf(`${i}.example`, ONE)
  assert.deepEqual(servers.answersOf('more.example', ONE), ['unresolved'])
  t.mock.timers.tick(3_000)
  assert.deepEqual(servers.answersOf('more.example', ONE), ['unresolved'])
  servers.asked[7]!.done([])
  assert.deepEqual(servers.answersOf('more.example', ONE), [])
  assert.equal(servers.asked.length, 257)
  servers.addresses.close()
})

test('8192 names are kept, each with 256 addresses of a family; the name answered longest ago makes room', () => {
  const servers = new Servers()
  for (let i = 0; i <= 8_192; i++) {
    servers.answersOf(`${i}.example`, ONE)
    servers.asked.pop()!.done(found(60, ONE))
  }
  assert.equal(servers.addresses.names, 8_192)
  assert.deepEqual(servers.answersOf('1.example', ONE), ['resolved'])
  assert.deepEqual(servers.answersOf('0.example', ONE), [])
  const many = Array.from({ length: 300 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
  servers.asked.pop()!.done(found(60, ...many))
  assert.deepEqual(servers.answersOf('0.example', '10.0.0.255'), ['resolved'])
  assert.deepEqual(servers.answersOf('0.example', '10.0.1.0'), ['mismatch'])
})

test('who does not wait any more is not told, and nobody is after close()', () => {
  const servers = new Servers()
  const told: string[] = []
  const stop = servers.addresses.ask('a.example', ONE, () => told.push('stopped'))
  servers.addresses.ask('a.example', ONE, () => told.push('first'))
  stop()
  servers.asked[0]!.done(found(60, ONE))
  assert.deepEqual(told, ['first'])
  servers.addresses.ask('b.example', ONE, () => told.push('closed'))
  servers.addresses.close()
  servers.asked[1]!.done(found(60, ONE))
  assert.deepEqual([told, servers.isClosed], [['first'], true])
})

test('16384 wait at once; who stops makes room, and so do those that are told', () => {
  const servers = new Servers()
  const told: AddressAnswer[] = []
  const ask = () => servers.addresses.ask('a.example', ONE, (answer) => told.push(answer))
  const stops = Array.from({ length: 16_384 }, ask)
  ask()
  assert.deepEqual(told.splice(0), ['unresolved'])
  for (const stop of stops.slice(0, 2)) stop()
  stops[0]!()
  ask()
  ask()
  ask()
  assert.deepEqual(told.splice(0), ['unresolved'])
  servers.asked[0]!.done(found(0, ONE))
  assert.equal(told.length, 16_384)
  stops[5]!()
  servers.now = 60_001
  for (let i = 0; i < 16_384; i++) ask()
  assert.equal(told.length, 16_384)
  servers.addresses.close()
})
