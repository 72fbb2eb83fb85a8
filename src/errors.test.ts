import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { EXIT_CODES, LimpidError } from './errors.ts'

const page = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')
const sections = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')).trim(), section] as const),
)

test('docs/errors.md has a section for every code and for nothing else, in order', () => {
  assert.deepEqual([...sections.keys()], Object.keys(EXIT_CODES).toSorted())
})

for (const [code, exitCode] of Object.entries(EXIT_CODES)) {
  test(`${code} is documented with its exit code, an example line and a cure`, () => {
    const section = sections.get(code) ?? ''
    assert.match(section, new RegExp(`^Exit code ${exitCode}\\. `, 'm'))
    assert.match(section, new RegExp(`^ {4}${code}: \\S`, 'm'))
    assert.match(section, /^Cure: \S/m)
  })
}

test('an error is one line with its code and what to do, whatever is in its message', () => {
  const error = new LimpidError('LIMPID_PROGRAM', 'nft failed:\n  Error: no\n', { cure: 'install it', cause: 'x' })
  assert.equal(error.toString(), 'LIMPID_PROGRAM: nft failed: Error: no ; install it')
  assert.equal(error.exitCode, 1)
  assert.equal(error.cause, 'x')
})
