import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '../net/prefix.ts'
import { bypassLines } from './bypass-lines.ts'

const counts = (connections: number, packets: number | undefined, bytes: number | undefined) => ({
  connections,
  packets,
  bytes,
})
const TEN = parsePrefix('10.0.0.0/8')!

test('each prefix has its line, the most bytes first, and all together one where these do not say it', () => {
  const of = new Map([
    ['10.0.0.0/8', counts(1, 8, 900)],
    ['192.0.2.1/32', counts(2, 17, 1_800)],
    ['192.0.2.9/32', counts(0, 0, 0)],
  ])
  assert.deepEqual(bypassLines({ of, total: counts(4, 30, 3_000) }, [TEN]), [
    'bypass 192.0.2.1/32: 2 connections, 17 packets, 1800 bytes',
    'bypass 10.0.0.0/8: 1 connection, 8 packets, 900 bytes',
    'bypass in all: 4 connections, 30 packets, 3000 bytes',
  ])
})

test('one alone needs no sum, and nothing no line but for what is configured', () => {
  const one = counts(1, 1, 60)
  assert.deepEqual(bypassLines({ of: new Map([['10.0.0.0/8', one]]), total: one }, [TEN]), [
    'bypass 10.0.0.0/8: 1 connection, 1 packet, 60 bytes',
  ])
  const none = counts(0, 0, 0)
  assert.deepEqual(bypassLines({ of: new Map([['192.0.2.1/32', none]]), total: none }, [TEN]), [])
  assert.deepEqual(bypassLines({ of: new Map([['10.0.0.0/8', none]]), total: none }, [TEN]), [
    'bypass 10.0.0.0/8: 0 connections, 0 packets, 0 bytes',
  ])
  const counted = counts(3, undefined, undefined)
  assert.deepEqual(bypassLines({ of: new Map([['10.0.0.0/8', counted]]), total: counted }, [TEN]), [
    'bypass 10.0.0.0/8: 3 connections',
  ])
})

test('a long list is told in part', () => {
  const of = new Map(Array.from({ length: 100 }, (_, i) => [`10.0.0.${i}/32`, counts(1, 1, i)]))
  const lines = bypassLines({ of, total: counts(100, 100, 4_950) }, [])
  assert.equal(lines.length, 34)
  assert.deepEqual(lines.slice(-2), [
    'bypass: 68 more prefixes',
    'bypass in all: 100 connections, 100 packets, 4950 bytes',
  ])
})
