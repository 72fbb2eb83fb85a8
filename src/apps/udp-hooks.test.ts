import assert from 'node:assert/strict'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { crypto, OTHER_DCID, OTHER_HELLO, RFC_HELLO, sealed } from '../inspect/quic.fixture.ts'
import { until } from '../lab/traffic.fixture.ts'
import type { HookFlow, Hooks } from '../proxy/hooks.ts'
import { openDescriptors } from '../proxy/proxy.fixture.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { BROKEN_HOOKS } from './broken-hooks.fixture.ts'
import { createProxy } from './create-proxy.ts'
import { type ConfigInput, defineConfig } from './define-config.ts'

/** Sends back what it gets, behind its own name. */
async function startEcho(name: string) {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const heard: string[] = []
  socket.on('message', (bytes, { address, port }) => {
    heard.push(String(bytes))
    socket.send(`${name} ${bytes}`, port, address)
  })
  const close = async (): Promise<void> => {
    socket.close()
    await once(socket, 'close')
  }
  return { heard, port: socket.address().port, close }
}

async function startWith(hooks: Hooks, policy?: ConfigInput['policy']) {
  const server = await startEcho('server')
  const other = await startEcho('other')
  const listener = { name: 'udp', intercept: 'none' as const, protocols: 'udp', listen: '127.0.0.1:53955' }
  const config = defineConfig({
    listeners: [{ ...listener, to: `127.0.0.1:${server.port}` }],
    hooks,
    ...(policy === undefined ? {} : { policy }),
  })
  const proxy = createProxy(config)
  const records: FlowRecord[] = []
  proxy.on('flow', (record) => records.push(record))
  const [address] = await proxy.listen()
  return {
    ...{ proxy, records, server, other, port: address!.port },
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      await server.close()
      await other.close()
    },
  }
}

/** A client with a port of its own, connected, so that it hears of closed ports. */
async function startClient(port: number) {
  const socket: Socket = createSocket('udp4')
  const answers: string[] = []
  socket.on('message', (bytes) => answers.push(String(bytes)))
  socket.on('error', (error: NodeJS.ErrnoException) => answers.push(String(error.code)))
  socket.connect(port, '127.0.0.1')
  await once(socket, 'connect')
  return { socket, answers, send: (text: string) => socket.send(text) }
}

before(async () => {
  await using forwarder = await startWith({}) // what the first use opens stays open
  const client = await startClient(forwarder.port)
  client.send('x')
  await until(() => client.answers.length === 1, 'the answer')
  client.socket.close()
})

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a decision
for (const awaits of [false, true]) {
  test(`a session is decided by its hook once, ${awaits ? 'and what comes meanwhile is held' : 'at once'}`, async () => {
    const atFirst = openDescriptors()
    {
      const seen: HookFlow[] = []
      let decision: ReturnType<NonNullable<Hooks['onFlow']>>
      const onFlow: Hooks['onFlow'] = awaits
        ? async (flow) => {
            seen.push(flow)
            await sleep(30)
            return decision
          }
        : (flow) => {
            seen.push(flow)
            return decision
          }
      await using forwarder = await startWith(
        { onFlow },
        { rules: [{ name: 'all', protocols: 'udp', then: 'forward' }] },
      )
      const { proxy, port, records, server, other } = forwarder
      const sendTwo = async (wanted: number): Promise<string[]> => {
        const client = await startClient(port)
        client.send('1')
        client.send('2')
        await (wanted > 0 ? until(() => client.answers.length === wanted, 'answers') : sleep(100))
        client.socket.close()
        return client.answers
      }
      assert.deepEqual(await sendTwo(2), ['server 1', 'server 2'])
      decision = { then: 'forward', to: `127.0.0.1:${other.port}` }
      assert.deepEqual(await sendTwo(2), ['other 1', 'other 2'])
      decision = { then: 'reject', by: 'drop' }
      assert.deepEqual(await sendTwo(0), [])
      decision = { then: 'via', via: { proxyProtocol: 'v2' } }
      assert.deepEqual(
        (await sendTwo(0)).filter((answer) => answer !== 'ECONNREFUSED'),
        [],
      )
      assert.deepEqual(
        [server.heard, other.heard],
        [
          ['1', '2'],
          ['1', '2'],
        ],
      )
      const [first] = seen
      assert.deepEqual(
        [first?.listener, first?.transport, first?.protocol, first?.host, first?.rule, first?.upstream.port],
        ['udp', 'udp', 'unknown', undefined, 'all', server.port],
      )
      if (awaits) assert.equal(seen.length, 4, 'once for two datagrams')
      const { datagramsDropped, hooksWaiting, sessionsOpen } = proxy.stats()
      assert.deepEqual([datagramsDropped, hooksWaiting, sessionsOpen], [{ policy: 4 }, 0, 2])
      await proxy.close()
      assert.deepEqual(
        records.map(({ rule, datagrams }) => `${rule} ${datagrams?.clientToUpstream}`),
        ['all 2', 'onFlow 2'],
      )
    }
    await until(() => openDescriptors() <= atFirst, 'descriptors')
  })
}

for (const [what, broken, counter] of BROKEN_HOOKS) {
  test(`a hook that ${what} costs its session, or lets it go on`, async () => {
    for (const onHookFailure of ['reject', 'forward'] as const) {
      await using forwarder = await startWith({
        onFlow: broken as Hooks['onFlow'],
        hookDeadline: '50ms',
        onHookFailure,
      })
      const client = await startClient(forwarder.port)
      client.send('1')
      if (onHookFailure === 'forward') await until(() => client.answers.length === 1, 'the answer')
      else await until(() => forwarder.proxy.stats().datagramsDropped['hook-failed'] === 1, 'the drop')
      const stats = forwarder.proxy.stats()
      assert.deepEqual([stats[counter], stats.hooksWaiting], [1, 0])
      assert.deepEqual(forwarder.server.heard, onHookFailure === 'forward' ? ['1'] : [])
      client.socket.close()
    }
  })
}

test('of a session that waits eight datagrams are held, and a proxy that is closed gives it up', async () => {
  const atFirst = openDescriptors()
  let isAborted = false
  const forwarder = await startWith({
    onFlow: ({ signal }) => {
      signal.addEventListener('abort', () => {
        isAborted = true
      })
      return new Promise(() => {})
    },
  })
  const client = await startClient(forwarder.port)
  for (let i = 0; i < 10; i++) client.send(`${i}`)
  await until(() => forwarder.proxy.stats().datagramsDropped['decision-waiting'] === 2, 'the drops')
  assert.equal(forwarder.proxy.stats().hooksWaiting, 1)
  const startedAt = performance.now()
  await forwarder[Symbol.asyncDispose]()
  assert.ok(performance.now() - startedAt < 900, 'it does not wait for the deadline')
  assert.equal(isAborted, true)
  client.socket.close()
  await until(() => openDescriptors() <= atFirst, 'descriptors')
})
test('a connection with another name that begins while the hook is waited for does not go on unasked', async () => {
  const asked: (string | undefined)[] = []
  let open = (): void => {}
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  await using forwarder = await startWith({
    onFlow: async ({ host }) => {
      asked.push(host)
      await gate
      return host === 'example.com' ? undefined : { then: 'reject' }
    },
  })
  const client = await startClient(forwarder.port)
  client.socket.send(sealed(crypto(RFC_HELLO)))
  await until(() => forwarder.proxy.stats().hooksWaiting === 1, 'the hook')
  client.socket.send(sealed(crypto(OTHER_HELLO), { dcid: OTHER_DCID }))
  await sleep(50)
  open()
  await until(() => forwarder.records.length === 1, 'the end of the session')
  assert.equal(forwarder.server.heard.length, 1)
  client.socket.send(sealed(crypto(OTHER_HELLO), { dcid: OTHER_DCID }))
  await until(() => asked.length === 2 && forwarder.proxy.stats().hooksWaiting === 0, 'the hook again')
  await sleep(50)
  assert.equal(forwarder.server.heard.length, 1)
  client.socket.close()
})

test('a connection that begins within a session and belongs elsewhere goes there, as a session of its own', async () => {
  const elsewhere = await startEcho('elsewhere')
  await using forwarder = await startWith(
    {},
    { rules: [{ name: 'other', hosts: ['another.com'], then: 'forward', to: `127.0.0.1:${elsewhere.port}` }] },
  )
  const client = await startClient(forwarder.port)
  client.socket.send(sealed(crypto(RFC_HELLO)))
  await until(() => forwarder.server.heard.length === 1, 'the first connection')
  const other = sealed(crypto(OTHER_HELLO), { dcid: OTHER_DCID })
  client.socket.send(other)
  await until(() => forwarder.records.length === 1, 'the end of the session')
  client.socket.send(other)
  await until(() => elsewhere.heard.length === 1, 'the other connection')
  assert.deepEqual([forwarder.server.heard.length, forwarder.records[0]?.reason], [1, 'policy'])
  client.socket.close()
  await elsewhere.close()
})
// biome-ignore-end lint/suspicious/noThenProperty: as above
