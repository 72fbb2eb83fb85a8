import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LearntNames } from './learnt.ts'

const lesson = (name: string, endsAtMs = 60_000) => ({ name, addresses: ['192.0.2.1', '2001:db8::1'], endsAtMs })

test('the names of an address are those that this client learnt, the last one first, each once', () => {
  const learnt = new LearntNames()
  learnt.note('10.0.3.1', lesson('a.example'), 0)
  learnt.note('10.0.3.1', lesson('b.example'), 0)
  learnt.note('10.0.3.1', lesson('a.example', 70_000), 0)
  assert.deepEqual(learnt.namesOf('10.0.3.1', '2001:db8::1', 1), ['a.example', 'b.example'])
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.9', 1), [])
  assert.deepEqual(learnt.namesOf('10.0.3.2', '192.0.2.1', 1), [])
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.1', 60_000), ['a.example'])
})

test('a client that asks for everything pushes out its own names first, and many clients the oldest', () => {
  const learnt = new LearntNames()
  learnt.note('10.0.3.1', lesson('a.example'), 0)
  for (let i = 0; i < 300; i++) learnt.note('10.0.3.2', lesson(`${i}.example`), 0)
  assert.equal(learnt.lessons, 257)
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.1', 1), ['a.example'])
  for (let client = 0; client < 2000; client++) {
    for (let i = 0; i < 100; i++) learnt.note(`client ${client}`, lesson('x.example'), 0)
  }
  assert.ok(learnt.lessons <= 131_072)
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.1', 1), [])
  assert.deepEqual(learnt.namesOf('client 1999', '192.0.2.1', 1), ['x.example'])
})
