import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { createProxy } from '../apps/create-proxy.ts'
import { defineConfig } from '../apps/define-config.ts'
import { DEFAULT_LIMITS } from '../config/defaults.ts'
import { forwarderConfig } from '../proxy/proxy.fixture.ts'
import type { ProxyStats } from '../proxy/stats.ts'
import { Batch } from './batch.ts'
import { countersOf, sumStats } from './summed-stats.ts'
import { confinement, workerCapabilities } from './worker-capabilities.ts'
import { workerConfig } from './worker-config.ts'

const LISTENER = { intercept: 'tproxy', ports: 80 } as const
const KERNEL = '6.1.0'

test('workers divide the limits between them; together they never allow less', () => {
  const config = forwarderConfig({ address: '127.0.0.1', port: 1 })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 0, max: 100_000 }), (workers, limit) => {
      const limits = {
        ...DEFAULT_LIMITS,
        flows: limit,
        flowsPerClient: limit,
        sessions: limit,
        sessionsPerClient: limit,
      }
      const share = workerConfig({ ...config, limits }, workers).limits
      assert.equal(share.flows, Math.ceil(limit / workers))
      assert.equal(share.sessions, share.flows)
      assert.equal(share.sessionsPerClient, share.flowsPerClient)
      assert.ok(share.flowsPerClient * workers >= limit && share.flowsPerClient <= limit)
      assert.ok(share.flowsPerClient * workers <= limit + 4 * Math.sqrt(limit * workers) + workers)
      assert.equal(share.flowsPerClient === 0, limit === 0, '0 means no bound')
    }),
  )
})

test('workers divide the new flows and the bytes that a rule lets through', () => {
  const config = forwarderConfig({ address: '127.0.0.1', port: 1 })
  const limit = {
    per: 'client',
    newFlows: { intervalMs: 100, burst: 10 },
    bytes: { perSecond: 2_000_000, burst: 200_000 },
  } as const
  const otherwise = { kind: 'forward', to: undefined, source: undefined, limit } as const
  const share = workerConfig({ ...config, policy: { ...config.policy, otherwise } }, 4).policy.otherwise
  const newFlows = { intervalMs: 400, burst: 9 } // 10 / 4 + 4 √(10 / 4)
  const bytes = { perSecond: 500_000, burst: 100_000 } // the least that there may be
  assert.deepEqual(share, { ...otherwise, limit: { per: 'client', newFlows, bytes } })
})

test('counters of several proxies are added up, whatever they have counted; gauges go with their proxy', async () => {
  const proxies = [1, 2].map(() => createProxy(forwarderConfig({ address: '127.0.0.1', port: 1 })))
  const [one, other] = proxies.map((proxy) => proxy.stats()) as [ProxyStats, ProxyStats]
  const first = {
    ...one,
    flowsOpen: 3,
    flowsTotal: 10,
    endedBy: { closed: 6, loop: 1 },
    apps: { dns: { cacheHits: 5 } },
  }
  const second = {
    ...other,
    flowsOpen: 4,
    flowsTotal: 20,
    endedBy: { closed: 16 },
    apps: { dns: { cacheHits: 1, cacheMisses: 2 } },
  }
  const sum = sumStats([first, countersOf(second)])
  assert.deepEqual(
    [sum.flowsOpen, sum.flowsTotal, sum.endedBy, sum.apps, sum.flowsLimit],
    [3, 30, { closed: 22, loop: 1 }, { dns: { cacheHits: 6, cacheMisses: 2 } }, one.flowsLimit],
  )
  assert.deepEqual(Object.keys(sum), Object.keys(one))
  await Promise.all(proxies.map((proxy) => proxy.close()))
})

test('a worker keeps the capabilities that its config needs, and no other', () => {
  const needs = (listener: object, kernel = KERNEL) =>
    workerCapabilities(defineConfig({ listeners: [{ ...LISTENER, ...listener }] }), kernel)
  assert.deepEqual(needs({}), ['CAP_NET_RAW'])
  assert.deepEqual(needs({ source: 'client' }), ['CAP_NET_RAW'])
  assert.deepEqual(needs({ intercept: 'redirect' }), ['CAP_NET_RAW'], 'the mark')
  assert.deepEqual(needs({ source: 'client-port' }), ['CAP_NET_RAW', 'CAP_NET_BIND_SERVICE'])
  assert.deepEqual(needs({ protocols: 'udp' }), ['CAP_NET_RAW', 'CAP_NET_BIND_SERVICE'])
  assert.deepEqual(needs({ protocols: 'udp', intercept: 'redirect' }), ['CAP_NET_RAW', 'CAP_NET_ADMIN'])
  assert.deepEqual(needs({}, '5.16.20-generic'), ['CAP_NET_RAW', 'CAP_NET_ADMIN'])
  assert.deepEqual(needs({}, '5.17.0'), ['CAP_NET_RAW'])
  const forwarder = { intercept: 'none', listen: '127.0.0.1:8081', to: '127.0.0.1:8080' } as const
  assert.deepEqual(workerCapabilities(defineConfig({ listeners: [forwarder] }), '4.19.0'), [])
})

test('what is not held is not asked for, and the bounding set is left alone by who may not change it', () => {
  const root = confinement(['CAP_NET_RAW'], new Set(['CAP_NET_RAW', 'CAP_SETPCAP', 'CAP_NET_ADMIN'])).slice(1)
  assert.ok(root.includes('--bounding-set=-all,+net_raw') && root.includes('--no-new-privs'))
  const user = confinement(['CAP_NET_RAW', 'CAP_NET_BIND_SERVICE'], new Set(['CAP_NET_RAW'])).slice(1)
  assert.ok(user.includes('--ambient-caps=-all,+net_raw') && !user.some((word) => word.startsWith('--bounding')))
})

test('a batch leaves when it is full or has waited; a reader that stalls costs what comes then, and it is counted', async () => {
  const sent: (readonly number[])[] = []
  const waiting: (() => void)[] = []
  const batch = new Batch<number>({ waitMs: 1, send: (items, done) => waiting.push(done) && sent.push(items) })
  batch.add(0)
  assert.deepEqual(sent, [])
  await sleep(20)
  assert.deepEqual(sent, [[0]])
  for (let item = 1; item < 20_000; item++) batch.add(item)
  assert.equal(batch.dropped + sent.flat().length, 20_000)
  assert.ok(batch.dropped > 10_000)
  for (const done of waiting.splice(0)) done()
  batch.add(20_000)
  batch.flush()
  assert.deepEqual(sent.at(-1), [20_000])
})
