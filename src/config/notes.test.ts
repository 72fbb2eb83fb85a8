import assert from 'node:assert/strict'
import { test } from 'node:test'
import { configNotes } from './notes.ts'
import { parseConfig } from './parse.ts'

const notesOn = (text: string) => configNotes(parseConfig(text, 'f'))

test('a listener whose packets an earlier one takes is named, in whatever order its conditions stand', () => {
  assert.deepEqual(
    notesOn('listeners: [{ name: a, ports: [80, 443] }, { name: b, ports: [443, 80], source: client }]'),
    ['listener b never gets a flow: listener a, before it, matches the same'],
  )
  for (const listeners of [
    '{ ports: 80 }, { ports: 81 }',
    '{ family: 4 }, {}',
    '{ exclude: { ports: 80 } }, {}',
    '{ intercept: none, listen: 1, to: a }, { intercept: none, listen: 2, to: a }',
  ]) {
    assert.deepEqual(notesOn(`listeners: [${listeners}]`), [], listeners)
  }
})

test('a family that passes by because of the source is named', () => {
  assert.deepEqual(notesOn('listeners: [{ name: a, source: 10.0.0.9 }]'), [
    'listener a: IPv6 passes by untouched: the source 10.0.0.9 is IPv4',
  ])
  assert.deepEqual(notesOn('listeners: [{ name: a, source: client, to: "[fd00::1]:80" }]'), [
    'listener a: IPv4 passes by untouched: "to" fd00::1 is IPv6',
  ])
  assert.deepEqual(notesOn('listeners: [{ family: 4, source: client }]'), [])
})
