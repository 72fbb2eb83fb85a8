import assert from 'node:assert/strict'
import { test } from 'node:test'
import { editDistance, nearest } from './nearest.ts'

test('one slip is one step: missing, added, wrong and swapped letters', () => {
  const distances = ['ports', 'port', 'portss', 'pirts', 'prots', 'xyz'].map((word) => editDistance(word, 'ports'))
  assert.deepEqual(distances, [0, 1, 1, 1, 1, 5])
})

test('the nearest word is found across case and separators, and nothing when none is near', () => {
  const words = ['interfaces', 'addressedHere', 'intercept', 'source', 'sources', 'onDown']
  assert.equal(nearest('sorce', words), 'source')
  assert.equal(nearest('on-down', words), 'onDown')
  assert.equal(nearest('interfces', words), 'interfaces')
  assert.equal(nearest('banana', words), undefined)
  assert.equal(nearest('x'.repeat(1_000_000), words), undefined)
})
