import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Transform } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../lab/traffic.fixture.ts'
import type { StreamApp } from '../proxy/app.ts'
import {
  connectTo,
  forwarderConfig,
  openDescriptors,
  readAll,
  startServer,
  whenClosed,
} from '../proxy/proxy.fixture.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { createProxy } from './create-proxy.ts'
import { type ConfigInput, defineConfig } from './define-config.ts'
import { transformApp } from './transform-app.ts'

type Written = NonNullable<ConfigInput['policy']>
type Serve = Parameters<typeof startServer>[0]

/** A forwarder whose policy and apps are given, and a server. */
async function startWith(
  apps: Record<string, StreamApp>,
  policy: Written,
  {
    serve = (socket) => socket.pipe(socket),
    hooks,
    timeouts,
  }: { serve?: Serve; hooks?: ConfigInput['hooks']; timeouts?: object } = {},
) {
  const listeners = [{ intercept: 'none', listen: '127.0.0.1:50080', to: '127.0.0.1:1' }] as const
  const peek = { silence: '1s', ...policy.peek } as const
  const config = defineConfig({ listeners: [...listeners], policy: { ...policy, peek }, apps, ...(hooks && { hooks }) })
  const server = await startServer(serve)
  const proxy = createProxy({
    ...config,
    listeners: forwarderConfig(server.address, { timeouts: timeouts ?? {} }).listeners,
  })
  const records: FlowRecord[] = []
  proxy.on('flow', (record) => records.push(record))
  const [address] = await proxy.listen()
  return {
    ...{ proxy, records, server },
    address: address!,
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

const shout = () => new Transform({ transform: (chunk, _encoding, done) => done(null, String(chunk).toUpperCase()) })

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const REQUEST = 'GET / HTTP/1.1\r\nHost: mine.example\r\n\r\n'
const BY_HOST: Written = { rules: [{ name: 'mine', hosts: ['mine.example'], then: 'handle', app: 'mine' }] }

test('an app reads the bytes by which its flow was decided, and its transforms keep half-close', async () => {
  let before = 0
  for (const turn of [1, 2]) {
    const forwarder = await startWith({ mine: transformApp({ upstreamToClient: shout }) }, BY_HOST)
    const client = connectTo(forwarder.address)
    client.end(REQUEST) // the FIN goes on, and the answer comes behind it
    assert.equal(String(await readAll(client)), REQUEST.toUpperCase())
    const other = connectTo(forwarder.address)
    other.end(REQUEST.replace('mine', 'other'))
    assert.equal(String(await readAll(other)), REQUEST.replace('mine', 'other'))
    await until(() => forwarder.records.length === 2, 'the records')
    const [record] = forwarder.records
    assert.deepEqual(
      [record?.reason, record?.rule, record?.host, record?.bytesClientToUpstream, record?.bytesUpstreamToClient],
      ['closed', 'mine', 'mine.example', REQUEST.length, REQUEST.length],
    )
    assert.deepEqual([record?.upstream, record?.error], [forwarder.server.address, undefined])
    assert.ok(record!.dialMs > 0)
    await Promise.all([client, other].map(whenClosed))
    await forwarder[Symbol.asyncDispose]()
    if (turn === 1)
      before = openDescriptors() // the ring stays that the first dial opens
    else assert.equal(openDescriptors(), before)
  }
})

test('what an app does wrong ends its flow with a reset and a reason, and no other', async () => {
  const throwing = (error: () => void) =>
    transformApp({
      clientToUpstream: () =>
        new Transform({
          transform() {
            error()
          },
        }),
    })
  const apps: Record<string, StreamApp> = {
    throws: throwing(() => {
      throw new Error('of mine')
    }),
    fails: transformApp({
      upstreamToClient: () => new Transform({ transform: (_1, _2, done) => done(new Error('of mine')) }),
    }),
    rejects: { serve: async () => Promise.reject(new Error('of mine')) },
    'throws-at-once': {
      serve: () => {
        throw new Error('of mine')
      },
    },
    makes: transformApp({
      clientToUpstream: () => {
        throw new Error('of mine')
      },
    }),
  }
  const names = Object.keys(apps)
  const rules = names.map((app) => ({ name: app, hosts: [`${app}.example`], then: 'handle' as const, app }))
  await using forwarder = await startWith(apps, { rules })
  const ask = async (name: string): Promise<string> => {
    const client = connectTo(forwarder.address)
    client.end(REQUEST.replace('mine', name))
    return await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code))
  }
  const answers = await Promise.all([...names, 'other'].map(ask))
  assert.deepEqual(
    answers.slice(0, -1),
    names.map(() => 'ECONNRESET'),
  )
  assert.equal(answers.at(-1), REQUEST.replace('mine', 'other'))
  await until(() => forwarder.records.length === names.length + 1, 'the records')
  const told = forwarder.records
    .filter(({ rule }) => rule !== undefined)
    .map(({ reason, error }) => `${reason} ${error}`)
  assert.deepEqual(
    told,
    names.map(() => 'app-failed Error: of mine'),
  )
})

test('a flow of an app ends as others do: by a dial that fails, resets, timeouts, and shutdown', async () => {
  const relay = transformApp({})
  const policy: Written = {
    rules: [
      { name: 'nowhere', hosts: ['nowhere.example'], then: 'handle', app: 'mine', to: '127.0.0.1:1' },
      { name: 'mine', then: 'handle', app: 'mine' },
    ],
  }
  const serve: Serve = (socket) =>
    socket.once('data', (first) => (String(first).includes('reset') ? socket.resetAndDestroy() : socket.write('hello')))
  const forwarder = await startWith({ mine: relay }, policy, { serve, timeouts: { idleMs: 100 } })
  const ask = async (host: string): Promise<string> => {
    const client = connectTo(forwarder.address)
    client.write(REQUEST.replace('mine', host))
    return await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code))
  }
  assert.equal(await ask('nowhere'), 'ECONNRESET')
  assert.equal(await ask('reset'), 'ECONNRESET')
  assert.equal(await ask('idle'), 'ECONNRESET')
  const client = connectTo(forwarder.address)
  client.write(REQUEST)
  await once(client, 'data')
  client.resetAndDestroy()
  await until(() => forwarder.records.length === 4, 'four records')
  const last = connectTo(forwarder.address)
  last.write(REQUEST)
  await once(last, 'data')
  await forwarder[Symbol.asyncDispose]()
  await whenClosed(last)
  assert.deepEqual(
    forwarder.records.map(({ reason }) => reason),
    ['dial-refused', 'upstream-reset', 'idle-timeout', 'client-reset', 'shutdown'],
  )
})

test('a client that is silent first is looked at when it speaks, before its app reads that', async () => {
  const policy: Written = {
    rules: [
      { name: 'no', hosts: ['no.example'], then: 'reject' },
      { name: 'elsewhere', hosts: ['elsewhere.example'], then: 'forward' },
      { name: 'mine', then: 'handle', app: 'mine' },
    ],
    peek: { silence: '50ms' },
  }
  let heard = ''
  const mine: StreamApp = {
    async serve(client) {
      client.write('220 speak\r\n')
      for await (const chunk of client.setEncoding('utf8')) {
        heard += chunk
        client.end('bye\r\n')
      }
    },
  }
  await using forwarder = await startWith({ mine }, policy)
  const ask = async (host: string): Promise<string> => {
    const client = connectTo(forwarder.address)
    const [greeting] = (await once(client, 'data')) as [Buffer]
    client.end(REQUEST.replace('mine', host))
    return `${greeting}${await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code))}`
  }
  assert.equal(await ask('mine'), '220 speak\r\nbye\r\n')
  assert.equal(await ask('no'), '220 speak\r\nECONNRESET')
  assert.equal(await ask('elsewhere'), '220 speak\r\nECONNRESET')
  await until(() => forwarder.records.length === 3, 'the records')
  assert.deepEqual(
    forwarder.records.map(({ reason, rule }) => `${reason} ${rule}`),
    ['closed mine', 'policy no', 'policy elsewhere'],
  )
  assert.equal(heard, REQUEST)
})

test('what a silent client says while a hook is asked about its silence is looked at, and its app reads it', async () => {
  const rules: Written['rules'] = [
    { name: 'no', hosts: ['no.example'], then: 'reject' },
    { name: 'mine', then: 'handle', app: 'mine' },
  ]
  const asked: string[] = []
  const onFlow = async ({ protocol }: { protocol: string }): Promise<undefined> => {
    asked.push(protocol)
    if (protocol === 'unknown') await sleep(100)
  }
  await using forwarder = await startWith(
    { mine: transformApp({}) },
    { rules, peek: { silence: '50ms' } },
    { hooks: { onFlow }, timeouts: { idleMs: 2_000 } },
  )
  for (const [host, answer] of [
    ['mine', REQUEST],
    ['no', 'ECONNRESET'],
  ] as const) {
    const client = connectTo(forwarder.address)
    const before = asked.length
    await until(() => asked.length > before, 'the hook')
    await sleep(20)
    client.end(REQUEST.replace('mine', host))
    assert.equal(await readAll(client).then(String, (error: NodeJS.ErrnoException) => String(error.code)), answer)
  }
  assert.deepEqual(asked, ['unknown', 'http1', 'unknown'])
  await until(() => forwarder.records.length === 2, 'the records')
  assert.deepEqual(
    forwarder.records.map(({ reason, rule }) => `${reason} ${rule}`),
    ['closed mine', 'policy no'],
  )
})

test('a hook gives a flow to an app by its name, and a name that there is not costs the flow alone', async () => {
  await using forwarder = await startWith(
    { mine: transformApp({ upstreamToClient: shout }) },
    {},
    {
      hooks: {
        onFlow: async ({ host }) => {
          await sleep(1)
          return { then: 'handle', app: host === 'mine.example' ? 'mine' : 'another' }
        },
      },
    },
  )
  const client = connectTo(forwarder.address)
  client.end(REQUEST)
  assert.equal(String(await readAll(client)), REQUEST.toUpperCase())
  const other = connectTo(forwarder.address)
  other.end(REQUEST.replace('mine', 'other'))
  await assert.rejects(readAll(other), { code: 'ECONNRESET' })
  await until(() => forwarder.records.length === 2, 'the records')
  assert.deepEqual(
    forwarder.records.map(({ reason, rule }) => `${reason} ${rule}`),
    ['closed onFlow', 'hook-failed undefined'],
  )
})

test('a slow receiver holds a fast sender back through a transform', async () => {
  const all = randomBytes(32 << 20)
  const pass = () => new Transform({ transform: (chunk, _encoding, done) => done(null, chunk) })
  const serve: Serve = (socket) => void socket.end(all)
  await using forwarder = await startWith({ mine: transformApp({ upstreamToClient: pass }) }, BY_HOST, { serve })
  const client = connectTo(forwarder.address)
  client.end(REQUEST)
  await sleep(300)
  const before = process.memoryUsage().arrayBuffers
  assert.ok(before < 2 * all.length, `${before}`)
  const hash = createHash('sha256')
  for await (const chunk of client) hash.update(chunk as Buffer)
  assert.equal(hash.digest('hex'), createHash('sha256').update(all).digest('hex'))
})

test('a rule names an app that there is', () => {
  const listeners = [{ ports: 80 }]
  const problem = (policy: Written, apps?: unknown): RegExp => {
    try {
      defineConfig({ listeners, policy, apps: apps as never })
    } catch (error) {
      return new RegExp(`^${(error as Error).message.replaceAll(/[[\]().+*?{}]/g, '\\$&')}$`)
    }
    return /nothing/
  }
  const says = (policy: Written, text: string, apps?: unknown) => assert.match(text, problem(policy, apps))
  says({ rules: [{ then: 'handle', app: 'mine' }] }, 'policy.rules[0].app: expected an app: http; found "mine"')
  says(
    { otherwise: { then: 'handle' } },
    'policy.otherwise.app: expected "app": then handle needs to know which app has the flow',
  )
  says(
    { otherwise: { then: 'handle', app: 'http', limit: { bytes: '1M/s' } } },
    'policy.otherwise.limit.bytes: "bytes" has no meaning with then handle: an app reads as fast as it likes',
  )
  says({ otherwise: { then: 'forward', app: 'http' } }, 'policy.otherwise.app: "app" has no meaning with then forward')
  says(
    { rules: [{ protocols: 'udp', then: 'handle', app: 'http' }] },
    'policy.rules[0].protocols: only TCP can be handled by an app',
  )
  says({}, "apps.http: expected another name: http is Limpid's own", { http: transformApp({}) })
  says({}, 'apps.mine: expected an app: an object with the function serve, found 3', { mine: 3 })
  const config = defineConfig({
    listeners,
    policy: { rules: [{ then: 'handle', app: 'mine', to: '10.0.0.9', source: 'client', mark: '0x4', dscp: 'ef' }] },
    apps: { mine: transformApp({}) },
  })
  assert.deepEqual(config.policy.rules[0]?.decision, {
    kind: 'handle',
    app: 'mine',
    to: { address: '10.0.0.9', port: 0 },
    source: 'client',
    mark: 4,
    dscp: 46,
  })
})
// biome-ignore-end lint/suspicious/noThenProperty: as above
