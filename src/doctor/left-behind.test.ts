import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FoundRules } from '../ruleset/backend.ts'
import { leftBehind, leftBehindFinding } from './left-behind.ts'

const GONE = { holder: undefined, persistent: false, journal: undefined, found: [] }
const GUARD: FoundRules = {
  backend: 'nft',
  label: 'nft table inet limpid-guard',
  name: 'limpid-guard',
  role: 'guard',
  owned: false,
  listing: '',
  digest: undefined,
}

test('what a killed process left is one line, which says what becomes of traffic', () => {
  const open = leftBehindFinding(leftBehind(GONE, 4)!, 'limpid run')
  assert.equal(open.what, 'Limpid is not running; left behind: 4 ip rules and their routes; traffic passes untaken')
  assert.equal(open.cure, 'limpid run (or: limpid rules remove)')
  const closed = leftBehindFinding(leftBehind({ ...GONE, found: [GUARD] }, 0)!, 'limpid run')
  assert.equal(
    closed.what,
    'Limpid is not running; left behind: nft table inet limpid-guard; nft table inet limpid-guard drops what its closed listeners should take',
  )
})

test('nothing is left behind where rules are held, where they are to stay, or where there are none', () => {
  assert.equal(leftBehind(GONE, 0), undefined)
  assert.equal(leftBehind({ ...GONE, holder: 7 }, 4), undefined)
  assert.equal(leftBehind({ ...GONE, persistent: true }, 4), undefined)
})
