import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MOMENT, momentFrom } from './moment.ts'

const NOW = new Date(2026, 0, 7, 15, 0) // a Wednesday

test('a moment is a date, a time of this day, or of the next such day of the week', () => {
  const at = (text: string) => momentFrom(MOMENT.parse(text)!, NOW)
  assert.deepEqual(at('10:30'), new Date(2026, 0, 7, 10, 30))
  assert.deepEqual(at('wed 10:30'), new Date(2026, 0, 7, 10, 30))
  assert.deepEqual(at('mon 00:00'), new Date(2026, 0, 12, 0, 0))
  assert.deepEqual(at('2026-03-01T23:59'), new Date(2026, 2, 1, 23, 59))
})

test('what is no moment is refused', () => {
  for (const text of ['noon', '24:00', '9:30', 'xyz 10:00', '2026-13-01T00:00', '']) {
    assert.equal(MOMENT.parse(text), undefined, text)
  }
})
