import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { test } from 'node:test'
import { parseConfig } from '../config/parse.ts'
import { until } from '../lab/traffic.fixture.ts'
import { Policy } from '../policy/policy.ts'
import { eventLoop } from '../sys/loop.ts'
import { Deciding, type Undecided } from './deciding.ts'
import { FlowHooks } from './flow-hooks.ts'
import { HostCheck } from './host-check.ts'
import { PeekBatch } from './peek-batch.ts'

test('nobody is told when the client has gone while its host is looked up, also after a hook that answered at once', async (t) => {
  const silent = createSocket('udp4').bind(0, '127.0.0.1')
  t.after(() => silent.close())
  await once(silent, 'listening')
  let asked = 0
  silent.on('message', () => asked++)
  const { port } = silent.address()
  const config = parseConfig(
    `
listeners:
  - { name: all }
  - { name: names, protocols: [udp], ports: 53, dns: { upstreams: "127.0.0.1:${port}" } }
policy: { hostCheck: enforce }
`,
    'limpid.yaml',
  )
  const told: string[] = []
  const stops = [undefined, () => undefined, async () => undefined].map((onFlow) => {
    const hostCheck = new HostCheck(config.listeners, () => {})
    t.after(() => hostCheck.close())
    const ready = { onDns: undefined, onClose: undefined, deadlineMs: 500, computingMs: 0, mostWaiting: 8, apps: [] }
    const hooks = new FlowHooks({ ...ready, onFlow, onFailure: 'reject' }, 0, () => {})
    const flow: Undecided = {
      listener: config.listeners[0]!,
      client: { address: '127.0.0.1', port: 40_000 },
      originalDst: { address: '127.0.0.9', port: 443 },
      upstream: { address: '127.0.0.9', port: 443 },
      hostChecked: undefined,
      onDecided: () => told.push(`${onFlow} decided`),
      onDecidedLate: () => told.push(`${onFlow} decided late`),
      onTurnedAway: (why) => told.push(`${onFlow} ${why}`),
    }
    const policy = new Policy(config.policy, () => assert.fail('there is no list'))
    const known = { learntNames: [], link: undefined }
    const deciding = new Deciding(flow, policy, { known, hooks, hostCheck, peeks: new PeekBatch(eventLoop) })
    deciding.onPeeked({ protocol: 'tls', host: 'www.example' }, false)
    return () => deciding.stop()
  })
  await until(() => asked >= stops.length, 'the questions')
  for (const stop of stops) stop()
  await new Promise((resolve) => setTimeout(resolve, 3_300)) // until the lookups are given up
  assert.deepEqual(told, [])
})
