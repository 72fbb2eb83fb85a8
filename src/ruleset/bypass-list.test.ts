import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPrefix, type Prefix, parsePrefix } from '../net/prefix.ts'
import { BypassList, MAX_RUN_TIME_BYPASS } from './bypass-list.ts'

const prefix = (text: string): Prefix => parsePrefix(text)!
const texts = (prefixes: Iterable<Prefix>): string[] => [...prefixes].map(formatPrefix).toSorted()

/** What the kernel is to have. */
function outermost(list: BypassList): string[] {
  return texts([...list.entries()].map((entry) => entry.prefix).filter((one) => list.isOutermost(one)))
}

test('of prefixes that lie within each other the kernel has the outermost, and those behind it when it goes', () => {
  const list = new BypassList([])
  assert.deepEqual(list.add(prefix('10.1.2.3'), undefined), { outcome: 'added', changed: [prefix('10.1.2.3')] })
  assert.deepEqual(texts(list.add(prefix('10.1.0.0/16'), 500).changed), ['10.1.0.0/16', '10.1.2.3/32'])
  assert.deepEqual(texts(list.add(prefix('10.0.0.0/8'), 300).changed), ['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3/32'])
  list.add(prefix('fd00::/8'), undefined)
  list.add(prefix('::/0'), 400)
  assert.deepEqual(outermost(list), ['10.0.0.0/8', '::/0'])
  assert.deepEqual(list.covering(prefix('10.1.2.3'))?.prefix, prefix('10.0.0.0/8'))
  assert.equal(list.covering(prefix('11.0.0.0')), undefined)
  assert.equal(list.nextDeadline(), 300)
  assert.deepEqual(texts(list.expire(299)), [])
  assert.deepEqual(texts(new Set(list.expire(300))), ['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3/32'])
  assert.deepEqual(outermost(list), ['10.1.0.0/16', '::/0'])
  list.expire(450)
  assert.deepEqual(outermost(list), ['10.1.0.0/16', 'fd00::/8'])
  assert.deepEqual(texts(list.remove(prefix('10.1.0.0/16'))), ['10.1.0.0/16', '10.1.2.3/32'])
  assert.deepEqual(outermost(list), ['10.1.2.3/32', 'fd00::/8'])
  assert.deepEqual(list.remove(prefix('10.1.0.0/16')), [])
  assert.equal(list.nextDeadline(), undefined)
})

test('a prefix is bypassed for the longest time that was asked for', () => {
  const list = new BypassList([prefix('192.0.2.0/24')])
  const one = prefix('10.0.0.0/8')
  list.add(one, 100)
  assert.equal(list.add(one, 100).outcome, 'already')
  assert.equal(list.add(one, 50).outcome, 'already')
  assert.deepEqual(list.add(one, 200), { outcome: 'prolonged', changed: [one] })
  assert.equal(list.add(one, undefined).outcome, 'prolonged')
  assert.equal(list.add(one, 300).outcome, 'already')
  assert.equal(list.add(prefix('192.0.2.0/24'), 300).outcome, 'already')
  assert.equal(list.get(prefix('192.0.2.0/24'))?.configured, true)
})

test('at the bound nothing is added, until one goes; those of the configuration do not count', () => {
  const list = new BypassList([prefix('192.0.2.0/24')])
  const at = (i: number) => prefix(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
  for (let i = 0; i < MAX_RUN_TIME_BYPASS; i++) assert.equal(list.add(at(i), i === 7 ? 1 : undefined).outcome, 'added')
  assert.deepEqual(list.add(at(MAX_RUN_TIME_BYPASS), undefined), { outcome: 'full', changed: [] })
  assert.equal(list.size, MAX_RUN_TIME_BYPASS + 1)
  list.expire(1)
  assert.equal(list.add(at(MAX_RUN_TIME_BYPASS), undefined).outcome, 'added')
  list.remove(at(0))
  assert.equal(list.add(at(0), undefined).outcome, 'added')
  assert.equal(list.add(at(7), undefined).outcome, 'full')
})

test('like a list that asks every entry, whatever comes and goes', () => {
  const list = new BypassList([])
  let seed = 1
  const random = (below: number): number => {
    seed = (seed * 48_271) % 2_147_483_647 // Park and Miller
    return seed % below
  }
  const isWithin = (inner: Prefix, outer: Prefix) =>
    outer.length < inner.length &&
    prefix(`${maskOf(inner.address, outer.length)}/${outer.length}`).address === outer.address
  const kernel = new Set<string>()
  for (let step = 0; step < 3_000; step++) {
    const length = 8 + random(5)
    const one = prefix(`${maskOf(`10.${random(4) * 16}.0.0`, length)}/${length}`)
    const what = random(3)
    const changed =
      what === 0 ? list.remove(one) : what === 1 ? list.expire(step) : list.add(one, step + 1 + random(40)).changed
    // as whoever keeps the kernel does: only what may have changed is looked at
    for (const each of changed) {
      if (list.isOutermost(each)) kernel.add(formatPrefix(each))
      else kernel.delete(formatPrefix(each))
    }
    const all = [...list.entries()].map((entry) => entry.prefix)
    const expected = all.filter((inner) => !all.some((outer) => isWithin(inner, outer)))
    assert.deepEqual([...kernel].toSorted(), texts(expected), `step ${step}`)
  }
})

function maskOf(address: string, length: number): string {
  const value = address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0)
  const masked = Math.floor(value / 2 ** (32 - length)) * 2 ** (32 - length)
  return [24, 16, 8, 0].map((shift) => Math.floor(masked / 2 ** shift) % 256).join('.')
}
