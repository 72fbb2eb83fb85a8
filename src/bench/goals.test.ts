import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GOALS, goalsTable, standings } from './goals.ts'
import { comparisonName, type Row } from './results.ts'
import { SUITES } from './suites.ts'

const row = (name: string, unit: string, ofMedians: number): Row => ({
  ...{ suite: 'tcp', case: name, title: '', unit, better: 'more', values: {}, medians: {} },
  ratios: { [comparisonName('limpid', 'haproxy')]: { ofMedians, min: ofMedians, max: ofMedians } },
})

test('a goal is met at its bound, and missed beyond it', () => {
  const met = (name: string, unit: string, ratio: number): boolean => {
    const standing = standings([row(name, unit, ratio)]).find(({ goal }) => goal.unit === unit)
    return standing!.isMet
  }
  assert.equal(met('bulk-1', 'Gbit/s', 1.4), true)
  assert.equal(met('bulk-1', 'Gbit/s', 1.39), false)
  assert.equal(met('bulk-1', 'CPU s/GB', 0.45), true)
  assert.equal(met('bulk-1', 'CPU s/GB', 0.46), false)
})

test('a goal without a ratio is not met, and the table says that it was not measured', () => {
  const all = standings([{ ...row('connections', 'connections/s', 2), ratios: {} }])
  assert.equal(all.length, 1)
  assert.equal(all[0]!.isMet, false)
  assert.match(goalsTable(all), /connections\/s .* not measured \|/)
})

test('every goal is about figures that are measured', () => {
  for (const { case: name, unit, ours, theirs } of GOALS) {
    const suite = SUITES.find(({ cases }) => cases.some((measured) => measured.name === name))
    const figure = suite?.cases
      .find((measured) => measured.name === name)
      ?.figures.find((candidate) => candidate.unit === unit)
    assert.ok(figure !== undefined && (theirs === undefined || figure.isCompared), `${name} has ${unit}`)
    assert.ok(
      theirs === undefined || suite?.comparisons.some((pair) => pair[0] === ours && pair[1] === theirs),
      `${name} compares ${ours} with ${theirs}`,
    )
  }
})
