import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { withBlocks } from './docs-blocks.ts'
import { DOCUMENT, documentBlocks } from './write-docs.ts'

const DOC = 'prose\n<!-- figures: tcp -->\nold\n<!-- end: tcp -->\nmore prose\n'

test('figures are replaced, prose is kept, and twice is as once', () => {
  const written = withBlocks(DOC, { tcp: '| new |\n' })
  assert.equal(written, 'prose\n<!-- figures: tcp -->\n\n| new |\n\n<!-- end: tcp -->\nmore prose\n')
  assert.equal(withBlocks(written, { tcp: '| new |\n' }), written)
})

test('a document without a place for figures, or with two, is refused', () => {
  assert.throws(() => withBlocks(DOC, { udp: '' }), /no place for udp/)
  assert.throws(() => withBlocks(DOC + DOC, { tcp: '' }), /no place for tcp/)
  assert.throws(() => withBlocks('<!-- figures: tcp -->', { tcp: '' }), /no place for tcp/)
})

test('docs/performance.md has a place for everything that a run writes', () => {
  const names = Object.keys(documentBlocks({ machine: 'm', goals: 'g', tables: new Map() }))
  const blocks = Object.fromEntries(names.map((name) => [name, `figures of ${name}`]))
  const written = withBlocks(readFileSync(DOCUMENT, 'utf8'), blocks)
  for (const name of names) assert.ok(written.includes(`figures of ${name}`))
})
