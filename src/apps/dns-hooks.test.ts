import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type * as dnsPacket from 'dns-packet'
import { queryFor } from '../inspect/dns.fixture.ts'
import { until } from '../lab/traffic.fixture.ts'
import type { HookQuestion, Hooks } from '../proxy/hooks.ts'
import { openDescriptors } from '../proxy/proxy.fixture.ts'
import { BROKEN_HOOKS, type BrokenHook } from './broken-hooks.fixture.ts'
import { createProxy } from './create-proxy.ts'
import { type ConfigInput, defineConfig } from './define-config.ts'
import { answerTo, type Decoded, decoded } from './dns/app.fixture.ts'
import { framed, MessageFrames } from './dns/frames.ts'

const FROM_SERVER = '192.0.2.1'

/** A DNS server on loopback that has one address for every name, by UDP and TCP. */
async function startDns() {
  const heard: string[] = []
  const answer = (bytes: Uint8Array): Uint8Array => {
    const { name } = decoded(bytes).questions![0]!
    heard.push(name)
    return answerTo(bytes, { answers: [{ type: 'A', name, ttl: 60, data: FROM_SERVER }] })
  }
  const tcp = createServer((socket) => {
    const frames = new MessageFrames()
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      frames.push(chunk)
      for (let one = frames.next(); one !== undefined; one = frames.next()) socket.write(framed(answer(one)))
    })
  }).listen(0, '127.0.0.1')
  await once(tcp, 'listening')
  const { port } = tcp.address() as AddressInfo
  const udp = createSocket('udp4').bind(port, '127.0.0.1') // chosen by TCP, whose ports are the scarcer ones
  await once(udp, 'listening')
  udp.on('message', (bytes, from) => udp.send(answer(bytes), from.port, from.address))
  const close = async (): Promise<void> => {
    udp.close()
    tcp.close()
    await Promise.all([once(udp, 'close'), once(tcp, 'close')])
  }
  return { heard, port, close }
}

/** A DNS listener on loopback with hooks, in front of such a server. */
async function startWith(hooks: Hooks, policy?: ConfigInput['policy']) {
  const server = await startDns()
  const listener = { name: 'dns', intercept: 'none' as const, protocols: ['udp', 'tcp'], listen: '127.0.0.1:53953' }
  const config = defineConfig({
    listeners: [{ ...listener, dns: { upstreams: `127.0.0.1:${server.port}` } }],
    hooks,
    ...(policy === undefined ? {} : { policy }),
  })
  const proxy = createProxy(config)
  const notes: string[] = []
  proxy.on('note', (line) => notes.push(line))
  const [address] = await proxy.listen()
  const { port } = address!
  return {
    ...{ proxy, notes, server, port },
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      await server.close()
    },
  }
}

/** The answers to these questions, sent at once by one socket: in the order in which they came, those that came in time. */
async function askUdp(port: number, queries: readonly Uint8Array[], withinMs = 3_000): Promise<Decoded[]> {
  const socket = createSocket('udp4')
  const answers: Decoded[] = []
  socket.on('message', (bytes) => answers.push(decoded(bytes)))
  for (const query of queries) socket.send(query, port, '127.0.0.1')
  const deadlineAt = performance.now() + withinMs
  while (answers.length < queries.length && performance.now() < deadlineAt) await sleep(5)
  socket.close()
  return answers
}

/** The same by one TCP connection. */
async function askTcp(port: number, queries: readonly Uint8Array[], withinMs = 3_000): Promise<Decoded[]> {
  const socket = connect(port, '127.0.0.1')
  const answers: Decoded[] = []
  const frames = new MessageFrames()
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    frames.push(chunk)
    for (let one = frames.next(); one !== undefined; one = frames.next()) answers.push(decoded(one))
  })
  for (const query of queries) socket.write(framed(query))
  const deadlineAt = performance.now() + withinMs
  while (answers.length < queries.length && performance.now() < deadlineAt) await sleep(5)
  socket.destroy()
  return answers
}

/** What the first use opens stays open. */
before(async () => {
  await using forwarder = await startWith({ onDns: async () => undefined })
  assert.equal((await askUdp(forwarder.port, [queryFor('a.example')])).length, 1)
  assert.equal((await askTcp(forwarder.port, [queryFor('a.example')])).length, 1)
})

const WAYS = { udp: askUdp, tcp: askTcp } as const

/** `name REFUSED`, `name 192.0.2.1 60`. */
function said({ questions, answers, rcode }: Decoded): string {
  const data = (answers ?? []).map(
    (record) => `${(record as dnsPacket.StringAnswer).data} ${(record as { ttl: number }).ttl}`,
  )
  return [questions?.[0]?.name, rcode === 'NOERROR' ? data.join(' ') || 'nothing' : rcode].join(' ')
}

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a decision
function decide({ name, type, rule }: HookQuestion): ReturnType<NonNullable<Hooks['onDns']>> {
  if (name === 'refused.example') return { then: 'reject' }
  if (name === 'nobody.example') return { then: 'reject', by: 'nxdomain' }
  if (name === 'dropped.example') return { then: 'reject', by: 'drop' }
  if (name === 'own.example') return { then: 'answer', addresses: ['10.1.2.3', 'fd00::3', '10.1.2.4'], ttl: '90s' }
  if (name === 'seen.example')
    return { then: 'answer', addresses: [rule === 'seen' && type === 'A' ? '10.0.0.1' : '10.0.0.2'] }
  return undefined
}

const ASKED: readonly (readonly [query: Uint8Array, answer: string])[] = [
  [queryFor('Refused.Example', { id: 1 }), 'Refused.Example REFUSED'],
  [queryFor('nobody.example', { id: 2 }), 'nobody.example NXDOMAIN'],
  [queryFor('own.example', { id: 3 }), 'own.example 10.1.2.3 90 10.1.2.4 90'],
  [queryFor('own.example', { id: 4, type: 'AAAA' }), 'own.example fd00::3 90'],
  [queryFor('own.example', { id: 5, type: 'TXT' }), 'own.example nothing'],
  [queryFor('seen.example', { id: 6 }), 'seen.example 10.0.0.1 60'],
  [queryFor('ok.example', { id: 7 }), `ok.example ${FROM_SERVER} 60`],
  [queryFor('ruled.example', { id: 8 }), 'ruled.example REFUSED'],
]

for (const transport of ['udp', 'tcp'] as const) {
  for (const awaits of [false, true]) {
    test(`${transport}: what onDns returns is done, ${awaits ? 'also later' : 'at once'}; the rules are asked before`, async () => {
      const atFirst = openDescriptors()
      {
        const seen: HookQuestion[] = []
        const onDns: Hooks['onDns'] = awaits
          ? async (question) => {
              seen.push(question)
              await sleep(5)
              return decide(question)
            }
          : (question) => {
              seen.push(question)
              return decide(question)
            }
        await using forwarder = await startWith(
          { onDns },
          {
            rules: [
              { name: 'ruled', hosts: 'ruled.example', then: 'reject', by: 'refused' },
              { name: 'seen', hosts: 'seen.example', then: 'forward' },
            ],
          },
        )
        const { proxy, port, server } = forwarder
        const answers = await WAYS[transport](
          port,
          ASKED.map(([query]) => query),
        )
        assert.deepEqual(
          answers.sort((a, b) => a.id! - b.id!).map(said),
          ASKED.map(([, answer]) => answer),
        )
        assert.deepEqual(await WAYS[transport](port, [queryFor('dropped.example')], 100), [])
        assert.deepEqual(server.heard, ['ok.example'])
        assert.equal(seen.length, ASKED.length, 'the one that the rules refuse is none of its business')
        const { listener, client, originalDst, name, type, rule } = seen.find((one) => one.type === 'AAAA')!
        assert.deepEqual(
          [listener, seen[0]?.transport, client.address, originalDst, name, type, rule],
          ['dns', transport, '127.0.0.1', { address: '127.0.0.1', port }, 'own.example', 'AAAA', undefined],
        )
        assert.deepEqual(proxy.namesOf('127.0.0.1', '10.1.2.4'), ['own.example'])
        assert.deepEqual([proxy.stats().hooksWaiting, proxy.stats().hookFailures], [0, 0])
      }
      await until(() => openDescriptors() <= atFirst, 'descriptors')
    })
  }

  test(`${transport}: to another server, whose answers are no others'`, async () => {
    const other = await startDns()
    let isElsewhere = true
    const onDns = () => (isElsewhere ? ({ then: 'forward', to: `127.0.0.1:${other.port}` } as const) : undefined)
    await using forwarder = await startWith({ onDns })
    const ask = () => WAYS[transport](forwarder.port, [queryFor('a.example')])
    await ask()
    assert.equal((await ask()).length, 1)
    assert.deepEqual([other.heard, forwarder.server.heard], [['a.example'], []], 'the second is from the cache')
    isElsewhere = false
    assert.equal((await ask()).length, 1)
    assert.deepEqual([other.heard, forwarder.server.heard], [['a.example'], ['a.example']])
    await forwarder.proxy.close()
    await other.close()
  })

  const BROKEN: readonly BrokenHook[] = [
    ...BROKEN_HOOKS,
    ['returns a mistyped word', async () => ({ then: 'reject', by: 'refuse' }), 'hookFailures'],
    ['returns a key too many', () => ({ then: 'reject', addresses: ['10.0.0.1'] }), 'hookFailures'],
    ['returns what is no address', () => ({ then: 'answer', addresses: ['here'] }), 'hookFailures'],
  ]
  for (const [what, broken, counter] of BROKEN) {
    test(`${transport}: a hook that ${what} costs its question alone`, async () => {
      for (const onHookFailure of ['reject', 'forward'] as const) {
        const onDns = (({ name }) => (name === 'bad.example' ? broken() : undefined)) as Hooks['onDns']
        await using forwarder = await startWith({ onDns, hookDeadline: '50ms', onHookFailure })
        const queries = ['a.example', 'bad.example', 'b.example'].map((name, id) => queryFor(name, { id }))
        const answers = await WAYS[transport](forwarder.port, queries)
        assert.deepEqual(answers.sort((a, b) => a.id! - b.id!).map(said), [
          `a.example ${FROM_SERVER} 60`,
          onHookFailure === 'reject' ? 'bad.example SERVFAIL' : `bad.example ${FROM_SERVER} 60`,
          `b.example ${FROM_SERVER} 60`,
        ])
        const stats = forwarder.proxy.stats()
        assert.deepEqual([stats[counter], stats.hooksWaiting], [1, 0])
        assert.match(forwarder.notes.join('\n'), /^hook onDns failed: .+$/)
      }
    })
  }

  test(`${transport}: a proxy that is closed gives up the questions that wait for a hook`, async () => {
    const atFirst = openDescriptors()
    const aborted: boolean[] = []
    const forwarder = await startWith({
      onDns: ({ signal }) => {
        signal.addEventListener('abort', () => aborted.push(true))
        return new Promise(() => {})
      },
    })
    const asking = WAYS[transport](forwarder.port, [queryFor('a.example'), queryFor('b.example')], 200)
    await until(() => forwarder.proxy.stats().hooksWaiting === 2, 'the hook')
    const startedAt = performance.now()
    await forwarder[Symbol.asyncDispose]()
    assert.ok(performance.now() - startedAt < 900, 'it does not wait for the deadline')
    assert.deepEqual([await asking, aborted], [[], [true, true]])
    await until(() => openDescriptors() <= atFirst, 'descriptors')
  })
}

test('questions that wait are bounded, and those beyond fail at once', async () => {
  await using forwarder = await startWith({
    onDns: () => new Promise(() => {}),
    mostWaiting: 10,
    hookDeadline: '300ms',
  })
  const queries = Array.from({ length: 50 }, (_, id) => queryFor(`${id}.example`, { id }))
  const answers = await askUdp(forwarder.port, queries)
  assert.deepEqual([...new Set(answers.map(({ rcode }) => rcode))], ['SERVFAIL'])
  assert.equal(answers.length, 50)
  const { hooksSkipped, hookTimeouts, hooksWaiting } = forwarder.proxy.stats()
  assert.deepEqual([hooksSkipped, hookTimeouts, hooksWaiting], [40, 10, 0])
})

test('of a client that resets its stream no hook is waited for', async () => {
  await using forwarder = await startWith({ onDns: () => new Promise(() => {}), hookDeadline: '1m' })
  const client = connect(forwarder.port, '127.0.0.1')
  client.write(framed(queryFor('a.example')))
  await until(() => forwarder.proxy.stats().hooksWaiting === 1, 'the hook')
  client.resetAndDestroy() // after a FIN alone it would still want its answers
  await until(() => forwarder.proxy.stats().hooksWaiting === 0, 'the end of waiting')
})
// biome-ignore-end lint/suspicious/noThenProperty: as above
