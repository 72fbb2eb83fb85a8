import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LimpidError } from '../errors.ts'
import { findProgram, mustRun, run } from './program.ts'

const failure = (pattern: RegExp) => (error: unknown) =>
  error instanceof LimpidError && error.code === 'LIMPID_PROGRAM' && pattern.test(`${error}`)

test('a program is found by name, and one that is missing names its Debian package', () => {
  assert.match(findProgram('sh'), /^\/.*\/sh$/)
  assert.throws(() => findProgram('limpid-no-such-program'), failure(/cannot find the program/))
  const path = process.env.PATH
  process.env.PATH = ''
  try {
    assert.match(findProgram('sh'), /bin\/sh$/)
  } finally {
    process.env.PATH = path
  }
})

test('input, both outputs and the exit code are passed on', async () => {
  const result = await run('sh', ['-c', 'cat; echo to stderr >&2; exit 3'], { input: 'to stdout' })
  assert.deepEqual(result, { code: 3, stdout: 'to stdout', stderr: 'to stderr\n' })
})

test('a program that ignores a large input ends with its own exit code', async () => {
  assert.equal((await run('true', [], { input: 'x'.repeat(10_000_000) })).code, 0)
})

test('a failure is an error with the first line of stderr', async () => {
  await assert.rejects(mustRun('sh', ['-c', 'echo; echo why >&2; exit 1']), failure(/: why$/))
})

test('a program that does not end is killed at its timeout', async () => {
  const startedAt = performance.now()
  await assert.rejects(run('sleep', ['30'], { timeoutMs: 50 }), failure(/no end after 50 ms/))
  assert.ok(performance.now() - startedAt < 5_000)
})
