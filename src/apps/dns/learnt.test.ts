import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LearntNames, newLesson } from './learnt.ts'

const lesson = (name: string, endsAtMs = 60_000) => newLesson(name, ['192.0.2.1', '2001:db8::1'], endsAtMs)

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
    for (let i = 0; i < 100; i++) learnt.note(`client ${client}`, lesson(`${i}.example`), 0)
  }
  assert.ok(learnt.lessons <= 131_072)
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.1', 1), [])
  assert.equal(learnt.namesOf('client 1999', '192.0.2.1', 1)[0], '99.example')
})

test('what is said again and again is one lesson, which pushes out no other', () => {
  const learnt = new LearntNames()
  learnt.note('10.0.3.1', lesson('a.example'), 0)
  for (let i = 0; i < 1_000; i++) {
    const turned = i % 2 === 0 ? ['192.0.2.1', '192.0.2.2'] : ['192.0.2.2', '192.0.2.1']
    learnt.note('10.0.3.1', newLesson('b.example', turned, 0), i)
  }
  assert.equal(learnt.lessons, 2)
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.1', 1_000), ['b.example', 'a.example'])
  learnt.note('10.0.3.1', lesson('a.example'), 1_000)
  assert.deepEqual(learnt.namesOf('10.0.3.1', '192.0.2.1', 1_000), ['a.example', 'b.example'])
})
