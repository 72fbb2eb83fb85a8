import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteRates } from './byte-rates.ts'

const LIMIT = { per: 'client', newFlows: undefined, bytes: { perSecond: 1_000_000, burst: 100_000 } } as const
const loop = { now: 0, later: (work: () => void) => work() }

test('flows of a client share, of both directions each by itself; other clients and other rules have their own', () => {
  const rates = new ByteRates(loop)
  const one = rates.enter('a', LIMIT, '10.0.0.1', 0)!
  assert.notEqual(one.clientToUpstream, one.upstreamToClient)
  assert.equal(rates.enter('a', LIMIT, '10.0.0.1', 0), one)
  assert.notEqual(rates.enter('a', LIMIT, '10.0.0.2', 0), one)
  assert.notEqual(rates.enter('b', LIMIT, '10.0.0.1', 0), one)
  assert.equal(rates.enter('a', { ...LIMIT, bytes: undefined }, '10.0.0.1', 0), undefined)
  assert.equal(rates.enter('a', undefined, '10.0.0.1', 0), undefined)
  const rule = { ...LIMIT, per: 'rule' } as const
  assert.equal(rates.enter('a', rule, '10.0.0.1', 0), rates.enter('a', rule, '10.0.0.2', 0))
})

test('a client who comes again finds what it has left, also when the same limit was read again, but not another limit', () => {
  const rates = new ByteRates(loop)
  const first = rates.enter('a', LIMIT, '10.0.0.1', 0)!
  first.upstreamToClient.spend(100_000)
  first.leave()
  const again = rates.enter('a', structuredClone(LIMIT), '10.0.0.1', 0)!
  assert.equal(again.upstreamToClient.left, 0)
  again.leave()
  const other = rates.enter('a', { ...LIMIT, bytes: { ...LIMIT.bytes, perSecond: 2_000_000 } }, '10.0.0.1', 0)!
  assert.equal(other.upstreamToClient.left, 100_000)
})

test('of clients without a flow those of long ago are forgotten, those with one never', () => {
  const rates = new ByteRates(loop)
  const spend = (client: string) => {
    const share = rates.enter('a', LIMIT, client, 0)!
    share.upstreamToClient.spend(60_000)
    return share
  }
  const busy = spend('192.0.2.1')
  spend('10.0.0.0').leave()
  for (let i = 1; i <= 20_000; i++) spend(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`).leave()
  assert.equal(rates.enter('a', LIMIT, '192.0.2.1', 0), busy)
  assert.equal(rates.enter('a', LIMIT, '10.0.0.0', 0)!.upstreamToClient.left, 100_000)
  assert.equal(rates.enter('a', LIMIT, '10.0.78.32', 0)!.upstreamToClient.left, 40_000)
})
