import assert from 'node:assert/strict'
import { test } from 'node:test'
import { markEffect } from './mark-effect.ts'

const MARK = { meta: { key: 'mark' } }
const MASK = 0x3000_0000
const effect = (value: unknown) => markEffect({ mangle: { key: MARK, value } }, MASK)

for (const [name, value, expected] of [
  ['a number overwrites our bits', 0x2000_0001, { kind: 'sets', bits: 0x2000_0000 }],
  ['a small number clears them', 1, { kind: 'sets', bits: 0 }],
  ['or with bits of others keeps ours', { '|': [MARK, 1] }, { kind: 'keeps' }],
  ['or with bits of ours changes them', { '|': [MARK, 0x1000_0000] }, { kind: 'depends' }],
  ['and with all of ours keeps them', { '&': [MARK, 0xffff_ff00] }, { kind: 'keeps' }],
  ['and without ours clears them', { '&': [MARK, 0xff] }, { kind: 'sets', bits: 0 }],
  ['(mark & x) | y with bits of others keeps ours', { '|': [{ '&': [MARK, 0xffff_ff00] }, 7] }, { kind: 'keeps' }],
  ['a connection mark may be anything', { ct: { key: 'mark' } }, { kind: 'depends' }],
] as const) {
  test(`what a rule of others does to the mark: ${name}`, () => assert.deepEqual(effect(value), expected))
}

test('a statement that sets no packet mark is none of our business', () => {
  assert.equal(markEffect({ mangle: { key: { ct: { key: 'mark' } }, value: 1 } }, MASK), undefined)
  assert.equal(markEffect({ accept: null }, MASK), undefined)
})
