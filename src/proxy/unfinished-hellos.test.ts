import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crypto, RFC_HELLO, sealed } from '../inspect/quic.fixture.ts'
import type { DropReason } from './drops.ts'
import { HalfHellos } from './half-hellos.ts'
import { UnfinishedHellos } from './unfinished-hellos.ts'

const HELLO_MS = 1_000
const first = sealed(crypto(RFC_HELLO.subarray(0, 100)))
const second = sealed(crypto(RFC_HELLO.subarray(100), 100), { number: 1 })

function counted() {
  const lost: Partial<Record<DropReason, number>> = {}
  const countDrop = (reason: DropReason, datagrams: number): void => {
    if (datagrams > 0) lost[reason] = (lost[reason] ?? 0) + datagrams
  }
  return { lost, countDrop }
}

test('what is held back of a hello goes first when it is whole, and then nothing is counted', () => {
  const { lost, countDrop } = counted()
  const hellos = new UnfinishedHellos(countDrop)
  assert.deepEqual(hellos.look('a', [first], 0, HELLO_MS), { kind: 'held' })
  const found = hellos.look('a', [second], 1, HELLO_MS)
  assert.ok(found.kind === 'found')
  assert.deepEqual([found.finding.host, found.before], ['example.com', [new Uint8Array(first)]])
  hellos.expire(HELLO_MS)
  assert.deepEqual(lost, {})
})

test('what is held back and never goes on is counted: too late, too much, or others took its room', () => {
  const { lost, countDrop } = counted()
  const hellos = new UnfinishedHellos(countDrop)
  hellos.look('late', [first, first], 0, HELLO_MS)
  hellos.expire(HELLO_MS)
  assert.deepEqual(lost, { 'hello-timeout': 2 })
  for (let sent = 0; sent < 8; sent++) hellos.look('much', [first], 2_000, HELLO_MS)
  assert.deepEqual(hellos.look('much', [first], 2_000, HELLO_MS), { kind: 'malformed' })
  assert.deepEqual(lost, { 'hello-timeout': 2, malformed: 8 })
  for (let client = 0; client < 1_026; client++) hellos.look(`${client}`, [first], 3_000, HELLO_MS)
  assert.deepEqual(lost, { 'hello-timeout': 4, malformed: 8 })
})

test('halves of a hello within a session are counted when another connection, or the end of the session, comes before', () => {
  const { lost, countDrop } = counted()
  const halves = new HalfHellos(countDrop)
  const [session, one, other] = [{}, {}, {}]
  for (let sent = 0; sent < 9; sent++) halves.hold(session, one, first)
  assert.deepEqual(lost, { malformed: 1 })
  assert.equal(halves.take(session, one).length, 8)
  halves.forget(session)
  assert.deepEqual(lost, { malformed: 1 })
  halves.hold(session, one, first)
  halves.hold(session, other, first)
  assert.deepEqual(lost, { malformed: 1, 'hello-timeout': 1 })
  assert.deepEqual(halves.take(session, one), [])
  assert.deepEqual(lost, { malformed: 1, 'hello-timeout': 2 })
  halves.hold(session, one, first)
  halves.forget(session)
  assert.deepEqual(lost, { malformed: 1, 'hello-timeout': 3 })
})
