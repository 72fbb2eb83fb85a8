import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chartOf } from './chart.ts'
import type { Row } from './results.ts'

const row = (name: string, better: Row['better'], ratio: number, spread = 0): Row => ({
  ...{ suite: 'tcp', case: name, title: '', unit: better === 'more' ? 'Gbit/s' : 'CPU s/GB', better },
  ...{ values: {}, medians: {} },
  ratios: { 'limpid ÷ haproxy': { ofMedians: ratio, min: ratio - spread, max: ratio + spread } },
})

/** The attributes of all elements of a class. */
function elements(svg: string, kind: string): Record<string, number>[] {
  return [...svg.matchAll(new RegExp(`<\\w+ class="${kind}"([^>]*)/>`, 'g'))].map(([, attributes]) =>
    Object.fromEntries([...attributes!.matchAll(/(\w+)="([\d.]+)"/g)].map(([, key, value]) => [key, Number(value)])),
  )
}

test('a bar is as long as its ratio, and its goal stands where it is met', () => {
  const svg = chartOf([row('bulk-1', 'more', 1.5), row('bulk-4', 'more', 0.75)])
  const [met] = elements(svg, 'met')
  const [missed] = elements(svg, 'missed')
  assert.equal(met!.width, 2 * missed!.width!)
  const [one] = elements(svg, 'one')
  assert.ok(Math.abs(one!.x1! - met!.x! - met!.width! / 1.5) < 0.2, 'the line at 1 has the same scale')
  const [goal] = elements(svg, 'goal')
  assert.ok(Math.abs((goal!.x1! - met!.x!) / met!.width! - 1.4 / 1.5) < 0.01)
})

test('whiskers go from the smallest to the largest ratio, and not beyond the edge', () => {
  const svg = chartOf([row('records', 'more', 1, 0.5), row('mixed', 'more', 9, 8)])
  const [first] = elements(svg, 'whisker')
  const [bar, beyond] = elements(svg, 'bar')
  assert.ok(Math.abs(first!.x1! - bar!.x! - bar!.width! / 2) < 0.2)
  assert.ok(Math.abs(first!.x2! - bar!.x! - bar!.width! * 1.5) < 0.2)
  assert.ok(beyond!.width! <= 440)
  assert.match(svg, /9\.00 \(1\.00–17\.00\)/)
})

test('what is better in which direction stands apart, and figures that are not compared are left out', () => {
  const bare = { ...row('bulk-8', 'more', 1), ratios: {} }
  const svg = chartOf([row('bulk-1', 'more', 1), row('bulk-1', 'less', 1), bare])
  assert.ok(svg.indexOf('More is better') < svg.indexOf('bulk-1, Gbit/s'))
  assert.ok(svg.indexOf('bulk-1, Gbit/s') < svg.indexOf('Less is better'))
  assert.ok(svg.indexOf('Less is better') < svg.indexOf('bulk-1, CPU s/GB'))
  assert.doesNotMatch(svg, /bulk-8/)
})
