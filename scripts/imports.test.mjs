import assert from 'node:assert/strict'
import { test } from 'node:test'
import { importProblems } from './imports.mjs'

const problemsOf = (files) => importProblems(new Map(Object.entries(files)))

test('imports from lower ranks and from the own folder pass', () => {
  const files = {
    'errors.ts': '',
    'net/address.ts': "import { LimpidError } from '../errors.ts'",
    'sys/socket.ts': "import type { Endpoint } from '../net/address.ts'\nimport { x } from './errno.ts'",
    'sys/errno.ts': "import { constants } from 'node:os'",
    'cli/main.ts': "const lab = await import('../lab/lab.ts')",
    'lab/lab.ts': '',
  }
  assert.deepEqual(problemsOf(files), [])
})

test('an import from a higher rank, or across one rank, is named with both files', () => {
  assert.deepEqual(problemsOf({ 'net/a.ts': "import { b } from '../sys/b.ts'", 'sys/b.ts': '' }), [
    'net/a.ts: imports sys/b.ts: net is not above sys',
  ])
  assert.deepEqual(problemsOf({ 'relay/a.ts': "export { b } from '../ruleset/b.ts'", 'ruleset/b.ts': '' }), [
    'relay/a.ts: imports ruleset/b.ts: relay is not above ruleset',
  ])
})

test('only cli and tests use the lab, and only tests use fixtures', () => {
  const lab = { 'lab/lab.ts': '', 'sys/x.fixture.ts': '' }
  assert.equal(problemsOf({ ...lab, 'index.ts': "import '../src/lab/lab.ts'".replace('../src', '.') }).length, 1)
  assert.equal(
    problemsOf({ ...lab, 'net/a.test.ts': "import '../lab/lab.ts'\nimport '../sys/x.fixture.ts'" }).length,
    0,
  )
  assert.equal(problemsOf({ ...lab, 'sys/y.ts': "import './x.fixture.ts'" }).length, 1)
})

test('a circle within a folder is found, also through a lazy import', () => {
  const files = { 'sys/a.ts': "import './b.ts'", 'sys/b.ts': "const a = () => import('./a.ts')" }
  assert.deepEqual(problemsOf(files), ['circle: sys/a.ts → sys/b.ts → sys/a.ts'])
})

test('types may refer to each other, since nothing is left of that', () => {
  const files = { 'sys/a.ts': "import type {\n  B,\n} from './b.ts'", 'sys/b.ts': "import { a } from './a.ts'" }
  assert.deepEqual(problemsOf(files), [])
})

test('a folder without a rank, and an import of nothing, fail', () => {
  assert.equal(problemsOf({ 'helpers/a.ts': '' }).length, 1)
  assert.equal(problemsOf({ 'net/a.ts': "import './gone.ts'" }).length, 1)
})
