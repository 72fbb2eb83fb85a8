import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TIMES } from '../config/policy-values.ts'
import { isWithin } from './time-window.ts'

/** 2026-11-22 is a Sunday. */
function at(day: number, time: string): Date {
  const [hours, minutes] = time.split(':').map(Number) as [number, number]
  return new Date(2026, 10, 22 + day, hours, minutes)
}

function isIn(text: string, day: number, time: string): boolean {
  const window = TIMES.parse(text)
  assert.ok(window, text)
  return isWithin(window, at(day, time))
}

test('days, times of day, and both', () => {
  assert.equal(isIn('mon-fri', 1, '00:00'), true)
  assert.equal(isIn('mon-fri', 6, '12:00'), false)
  assert.equal(isIn('08:00-18:00', 0, '08:00'), true)
  assert.equal(isIn('08:00-18:00', 0, '18:00'), false)
  assert.equal(isIn('sat,sun 08:00-24:00', 6, '23:59'), true)
  assert.equal(isIn('sat,sun 08:00-24:00', 1, '09:00'), false)
})

test('a night belongs to the day on which it begins, also from the last day of the week to the first', () => {
  assert.equal(isIn('fri 22:00-06:00', 5, '23:00'), true)
  assert.equal(isIn('fri 22:00-06:00', 6, '05:59'), true)
  assert.equal(isIn('fri 22:00-06:00', 6, '06:00'), false)
  assert.equal(isIn('fri 22:00-06:00', 5, '05:00'), false)
  assert.equal(isIn('sat 22:00-06:00', 0, '01:00'), true)
  assert.equal(isIn('sat-mon', 0, '12:00'), true)
})

test('what is no window is not taken for one', () => {
  for (const text of [
    '',
    'mon-',
    'mox',
    '8-18',
    '08:00',
    '25:00-26:00',
    '08:60-09:00',
    'mon 08:00',
    '08:00-18:00 mon',
  ]) {
    assert.equal(TIMES.parse(text), undefined, text)
  }
})
