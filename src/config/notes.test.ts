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
    '{ paths: local }, {}',
    '{ paths: local, uids: 0 }, { paths: local }',
    '{ paths: local, cgroups: a }, { paths: local, cgroups: b }',
    '{ fwmarks: 1 }, { fwmarks: 2 }',
    '{ paths: [local] }, { paths: [local, forwarded] }',
    '{ intercept: none, listen: 1, to: a }, { intercept: none, listen: 2, to: a }',
  ]) {
    assert.deepEqual(notesOn(`listeners: [${listeners}]`), [], listeners)
  }
})

test('paths and families that are taken by several earlier listeners leave none', () => {
  const [line] = notesOn('listeners: [{ name: a, paths: local }, { name: b }, { name: c, paths: [forwarded, local] }]')
  assert.equal(line, 'listener c never gets a flow: listener b, before it, matches the same')
})

test('a client on this host whose port cannot be had twice is told of', () => {
  const line =
    "listener a: on the path local the client's own socket has its port: the server sees another port of the same address"
  assert.deepEqual(notesOn('listeners: [{ name: a, source: client-port, paths: [forwarded, local] }]'), [line])
  assert.deepEqual(notesOn('listeners: [{ source: client-port }, { paths: local, source: client, ports: 1 }]'), [])
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

test('a bypass of what no listener takes, or of everything, is told of', () => {
  assert.deepEqual(notesOn('listeners: [{ family: 4 }]\nbypass: [fd00::/8, fd01::1, 10.0.0.0/8]'), [
    'bypass fd00::/8 and 1 more: no listener takes IPv6: it passes by anyway',
  ])
  assert.deepEqual(notesOn('listeners: [{ name: a }]\nbypass: 0.0.0.0/0'), [
    'bypass 0.0.0.0/0: no listener gets an IPv4 flow',
  ])
})
