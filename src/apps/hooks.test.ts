import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'
import type { HookFlow, Hooks } from '../proxy/hooks.ts'
import {
  connectTo,
  forwarderConfig,
  openDescriptors,
  readAll,
  startServer,
  whenClosed,
} from '../proxy/proxy.fixture.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { BROKEN_HOOKS, type BrokenHook } from './broken-hooks.fixture.ts'
import { createProxy } from './create-proxy.ts'
import { type ConfigInput, defineConfig } from './define-config.ts'

const REQUEST = 'GET / HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n'

/** A forwarder with hooks, and a server that answers "hello". */
async function startWith(hooks: Hooks, policy?: ConfigInput['policy']) {
  const listeners = [{ intercept: 'none', listen: '127.0.0.1:50080', to: '127.0.0.1:1' }] as const
  const config = defineConfig({ listeners: [...listeners], hooks, policy: { peek: { silence: '50ms' }, ...policy } })
  const server = await startServer((socket) => socket.once('data', () => socket.end('hello')))
  const proxy = createProxy({ ...config, listeners: forwarderConfig(server.address).listeners })
  const records: FlowRecord[] = []
  const notes: string[] = []
  proxy.on('flow', (record) => records.push(record)).on('note', (line) => notes.push(line))
  const [address] = await proxy.listen()
  return {
    ...{ proxy, records, notes, server },
    address: address!,
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

/** What the server says, or why it says nothing. */
async function ask(address: Endpoint, request = REQUEST): Promise<string> {
  const client = connectTo(address)
  client.end(request)
  return await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code))
}

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a decision
test('a hook sees whom a flow is for, and what it returns is done', async () => {
  const seen: HookFlow[] = []
  const other = await startServer((socket) => socket.end('the other'))
  await using forwarder = await startWith({
    onFlow: async (flow) => {
      seen.push(flow)
      await sleep(1)
      if (flow.host === 'no.example') return { then: 'reject', by: 'forbidden' }
      if (flow.host === 'reset.example') return { then: 'reject' }
      return flow.host === 'other.example' ? { then: 'forward', to: `127.0.0.1:${other.address.port}` } : undefined
    },
  })
  const { address, records, server } = forwarder
  const askFor = (host: string) => ask(address, REQUEST.replace('www.example', host))
  assert.equal(await askFor('www.example'), 'hello')
  assert.match(await askFor('no.example'), /^HTTP\/1\.1 403 .*rule onFlow/s)
  assert.equal(await askFor('reset.example'), 'ECONNRESET')
  assert.equal(await askFor('other.example'), 'the other')
  const [flow] = seen
  assert.deepEqual(
    [flow?.listener, flow?.protocol, flow?.host, flow?.alpn, flow?.names, flow?.rule],
    ['test', 'http1', 'www.example', [], [], undefined],
  )
  assert.deepEqual([flow?.originalDst, flow?.upstream], [address, server.address])
  await until(() => records.length === 4, 'the records')
  assert.deepEqual(
    records.map(({ reason, rule, host }) => `${reason} ${rule} ${host}`),
    [
      'closed undefined www.example',
      'policy onFlow no.example',
      'policy onFlow reset.example',
      'closed onFlow other.example',
    ],
  )
  await other[Symbol.asyncDispose]()
})

test('what the rules turn away is not asked about, and a flow that says nothing is asked about after the silence', async () => {
  const seen: string[] = []
  await using forwarder = await startWith(
    { onFlow: ({ protocol, rule }) => void seen.push(`${protocol} ${rule}`) },
    {
      rules: [
        { name: 'no', hosts: ['www.example'], then: 'reject' },
        { name: 'yes', hosts: ['ok.example'], then: 'forward' },
      ],
    },
  )
  assert.equal(await ask(forwarder.address), 'ECONNRESET')
  assert.equal(await ask(forwarder.address, REQUEST.replace('www', 'ok')), 'hello')
  const silent = connectTo(forwarder.address)
  await until(() => seen.length === 2, 'the hook')
  silent.end('?\n') // no protocol that is known
  assert.equal(String(await readAll(silent)), 'hello')
  assert.deepEqual(seen, ['http1 yes', 'unknown undefined', 'unknown undefined'])
})

test('a client that is silent first is asked about again when it speaks', async () => {
  const seen: string[] = []
  await using forwarder = await startWith({
    onFlow: async ({ protocol, host }) => {
      await sleep(1)
      seen.push(`${protocol} ${host}`)
      if (host === 'hangs.example') return await new Promise(() => {})
      return host === 'no.example' ? { then: 'reject' } : undefined
    },
  })
  const askLate = async (host: string): Promise<string> => {
    const client = connectTo(forwarder.address)
    const before = seen.length
    await until(() => seen.length > before, 'the first time')
    await sleep(20)
    client.end(REQUEST.replace('www.example', host))
    if (host === 'hangs.example') setTimeout(() => client.resetAndDestroy(), 50)
    return await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code))
  }
  assert.equal(await askLate('ok.example'), 'hello')
  assert.equal(await askLate('no.example'), 'ECONNRESET')
  await askLate('hangs.example')
  await until(() => forwarder.records.length === 3, 'the records')
  assert.deepEqual(
    seen,
    ['ok', 'no', 'hangs'].flatMap((name) => ['unknown undefined', `http1 ${name}.example`]),
  )
  const reasons = forwarder.records.map(({ reason }) => reason)
  assert.deepEqual(reasons.slice(0, 2), ['closed', 'policy'])
  assert.match(reasons[2] ?? '', /^client-/)
  assert.equal(forwarder.proxy.stats().hooksWaiting, 0)
})

test('a silent client that a hook has sent by a proxy goes on when the hook says the same of what it says', async () => {
  let asked = 0
  await using forwarder = await startWith({
    onFlow: async ({ host }) => {
      asked++
      return { then: 'via', via: { proxyProtocol: host === 'other.example' ? 'v2' : 'v1' } }
    },
  })
  const askLate = async (host: string): Promise<string> => {
    const before = asked
    const client = connectTo(forwarder.address)
    await until(() => asked > before, 'the hook')
    await sleep(20)
    client.end(REQUEST.replace('www.example', host))
    return await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code))
  }
  for (const [at, host] of ['www.example', 'other.example'].entries()) {
    assert.match(await askLate(host), /ECONNRESET|hello/) // the server of this test speaks at its header
    await until(() => forwarder.records.length === at + 1 && asked === 2 * (at + 1), 'the record')
  }
  assert.deepEqual(
    forwarder.records.map(({ bytesClientToUpstream, reason }) => [bytesClientToUpstream > 0, reason]),
    [
      [true, 'closed'],
      [false, 'policy'],
    ],
  )
})

const BROKEN: readonly BrokenHook[] = [
  ...BROKEN_HOOKS,
  ['returns a mistyped word', () => ({ then: 'rejekt' }), 'hookFailures'],
  ['returns a mistyped key', async () => ({ then: 'reject', because: 'of it' }), 'hookFailures'],
  ['returns what makes no sense', () => ({ then: 'reject', to: '10.0.0.1:1' }), 'hookFailures'],
  ['returns a number', async () => 7, 'hookFailures'],
  [
    'returns what throws when it is read',
    () =>
      new Proxy(
        {},
        {
          ownKeys: () => {
            throw new Error('no')
          },
        },
      ),
    'hookFailures',
  ],
]

for (const [what, broken, counter] of BROKEN) {
  for (const onHookFailure of ['reject', 'forward'] as const) {
    test(`a hook that ${what} costs its own flow alone, which is treated as ${onHookFailure}`, async () => {
      const before = openDescriptors()
      {
        const onFlow = (({ host }) => (host === 'www.example' ? broken() : undefined)) as Hooks['onFlow']
        await using forwarder = await startWith({ onFlow, hookDeadline: '100ms', onHookFailure })
        const { address, proxy, records, notes } = forwarder
        const [bad, ...good] = await Promise.all([
          ask(address),
          ...Array.from({ length: 5 }, () => ask(address, REQUEST.replace('www', 'ok'))),
        ])
        assert.equal(bad, onHookFailure === 'reject' ? 'ECONNRESET' : 'hello')
        assert.deepEqual(good, Array(5).fill('hello'))
        await until(() => records.length === 6, 'the records')
        const reason = records.find(({ host }) => host === 'www.example')?.reason
        assert.equal(reason, onHookFailure === 'reject' ? 'hook-failed' : 'closed')
        assert.deepEqual([proxy.stats()[counter], proxy.stats().hooksWaiting], [1, 0])
        assert.match(notes.join('\n'), /^hook onFlow failed: .+$/)
      }
      assert.equal(openDescriptors(), before)
    })
  }
}
// biome-ignore-end lint/suspicious/noThenProperty: as above

test('a client that resets while its hook is asked ends its flow, the hook is told, and its late answer is ignored', async () => {
  let flow: HookFlow | undefined
  let answer = (): void => {}
  await using forwarder = await startWith({
    onFlow: (asked) => {
      flow = asked
      void asked.signal
      return new Promise((resolve) => {
        answer = () => resolve(undefined)
      })
    },
  })
  const client = connectTo(forwarder.address)
  client.write(REQUEST)
  await until(() => flow !== undefined, 'the hook')
  assert.equal(flow?.signal.aborted, false)
  client.resetAndDestroy()
  await until(() => forwarder.records.length === 1, 'the record')
  assert.equal(forwarder.records[0]?.reason, 'client-gone')
  assert.equal(flow?.signal.aborted, true)
  answer()
  await sleep(10)
  const { dials, hooksWaiting, hookFailures, flowsOpen } = forwarder.proxy.stats()
  assert.deepEqual([dials, hooksWaiting, hookFailures, flowsOpen], [0, 0, 0, 0])
})

test('a proxy that is closed ends the flows that wait for a hook', async () => {
  let asked = 0
  const forwarder = await startWith({
    onFlow: () => {
      asked++
      return new Promise(() => {})
    },
  })
  const client = connectTo(forwarder.address)
  client.write(REQUEST)
  await until(() => asked === 1, 'the hook')
  const startedAt = performance.now()
  await forwarder[Symbol.asyncDispose]()
  assert.ok(performance.now() - startedAt < 900, 'it does not wait for the deadline')
  await whenClosed(client)
  assert.deepEqual(
    forwarder.records.map(({ reason }) => reason),
    ['shutdown'],
  )
})

test('onClose is told of each flow once, and may fail without harm', async () => {
  const told: string[] = []
  await using forwarder = await startWith({
    onClose: async ({ reason, host, bytesUpstreamToClient }) => {
      told.push(`${reason} ${host} ${bytesUpstreamToClient}`)
      throw new Error('the database is down')
    },
  })
  assert.equal(await ask(forwarder.address), 'hello')
  await until(() => told.length === 1, 'onClose')
  assert.deepEqual(told, ['closed undefined 5'], 'nobody has asked for the host')
  await until(() => forwarder.proxy.stats().hookFailures === 1, 'the failure')
  assert.match(forwarder.notes[0] ?? '', /^hook onClose failed: Error: the database is down$/)
})

test('200 flows whose hook awaits 5 ms are all decided, and no more wait than may', async () => {
  let waiting = 0
  let most = 0
  await using forwarder = await startWith({
    onFlow: async () => {
      most = Math.max(most, ++waiting)
      await sleep(5)
      waiting--
      return undefined
    },
    mostWaiting: 150,
  })
  const { address, proxy, records } = forwarder
  const answers = await Promise.all(Array.from({ length: 200 }, () => ask(address)))
  await until(() => records.length === 200, 'the records')
  const { hooksSkipped, hooksWaiting, endedBy } = proxy.stats()
  assert.ok(most <= 150, `${most} at once`)
  assert.equal(answers.filter((answer) => answer === 'hello').length, 200 - hooksSkipped)
  assert.deepEqual([hooksWaiting, endedBy['hook-failed'] ?? 0, endedBy.closed], [0, hooksSkipped, 200 - hooksSkipped])
})
