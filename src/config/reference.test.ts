import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { referenceTables } from './reference.fixture.ts'
import { fileSchema } from './schema.ts'

// docs/configuration.md, from its first "## " on, is what the schema says. After a change write it anew:
//     LIMPID_REFERENCE=write node --test dist/config/reference.test.js
const PAGE = new URL('../../docs/configuration.md', import.meta.url)

test('docs/configuration.md tells every key of limpid.yaml as the schema does', () => {
  const page = readFileSync(PAGE, 'utf8')
  const written = `${page.slice(0, page.indexOf('\n## '))}\n${referenceTables(fileSchema())}`
  if (process.env.LIMPID_REFERENCE === 'write') writeFileSync(PAGE, written)
  assert.equal(readFileSync(PAGE, 'utf8'), written)
})

test('every key of limpid.yaml is described', () => {
  const empty = referenceTables(fileSchema()).match(/\| `[^`]+` \| +\|/g) ?? []
  assert.deepEqual(empty, [])
})
