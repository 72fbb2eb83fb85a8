import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProxy } from '../apps/create-proxy.ts'
import { NO_POLICY } from '../config/policy.ts'
import type { Balance, PolicyConfig, RateLimit } from '../config/policy-types.ts'
import { until } from '../lab/traffic.fixture.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { connectTo, forwarderConfig, readAll, startServer, whenClosed } from './proxy.fixture.ts'
import type { FlowRecord } from './record.ts'

const NOWHERE = { address: '127.0.0.1', port: 1 } // nobody listens there

/** A forwarder whose flows all go to a pool, or are limited. */
async function startPool(
  servers: readonly Endpoint[],
  options: { balance?: Balance; healthMs?: number; limit?: RateLimit; fastOpen?: boolean } = {},
) {
  const { balance = 'round-robin', healthMs = 0, limit, fastOpen = false } = options
  const policy: PolicyConfig = {
    ...NO_POLICY,
    pools: { web: { servers, balance, healthMs } },
    otherwise: { kind: 'forward', to: { pool: 'web' }, source: undefined, limit },
  }
  const proxy = createProxy({ ...forwarderConfig(NOWHERE, { fastOpen, timeouts: { connectMs: 1_000 } }), policy })
  const records: FlowRecord[] = []
  const notes: string[] = []
  proxy.on('flow', (record) => records.push(record))
  proxy.on('note', (line) => notes.push(line))
  const [address] = await proxy.listen()
  return {
    proxy,
    notes,
    policy,
    serverStats: () => Object.values(proxy.stats().pools.web!),
    /** What a client gets that says `x`: an answer, or the errno of its reset; and the record. */
    ask: async () => {
      const before = records.length
      const client = connectTo(address!)
      client.end('x')
      const answer = await readAll(client).then(String, (error: NodeJS.ErrnoException) => error.code)
      await until(() => records.length > before, 'a record')
      return { answer, record: records.at(-1)! }
    },
    connect: () => connectTo(address!),
    [Symbol.asyncDispose]: () => proxy.close(),
  }
}

/** A server that answers `name x`. */
const named = (name: string) => startServer((socket) => socket.once('data', (chunk) => socket.end(`${name} ${chunk}`)))

test('flows are shared out in turn, and counted for each server', async () => {
  await using a = await named('a')
  await using b = await named('b')
  await using pool = await startPool([a.address, b.address])
  const answers = [await pool.ask(), await pool.ask(), await pool.ask(), await pool.ask()]
  assert.deepEqual(
    answers.map(({ answer }) => answer),
    ['a x', 'b x', 'a x', 'b x'],
  )
  assert.deepEqual(answers[1]!.record.upstream, b.address)
  const one = { flows: 0, flowsTotal: 2, failures: 0, up: 1 }
  assert.deepEqual(pool.serverStats(), [one, one])
})

test('the server with fewest flows gets the next one', async () => {
  await using a = await startServer((socket) => void socket.resume())
  await using b = await startServer((socket) => void socket.resume())
  await using pool = await startPool([a.address, b.address], { balance: 'least-flows' })
  const clients = Array.from({ length: 4 }, () => pool.connect())
  await until(() => a.connections.size === 2 && b.connections.size === 2, 'two connections to each')
  for (const socket of a.connections) socket.resetAndDestroy()
  await until(() => pool.serverStats()[0]!.flows === 0, 'the end of the flows to a')
  clients.push(pool.connect(), pool.connect())
  await until(() => a.connections.size === 2, 'two more to a')
  assert.equal(b.connections.size, 2)
  for (const client of clients) client.destroy()
})

for (const fastOpen of [false, true]) {
  test(`the flow that meets a dead server goes to another, which it is not any more for a while${fastOpen ? ', with Fast Open' : ''}`, async () => {
    await using a = await named('a')
    await using pool = await startPool([NOWHERE, a.address], { fastOpen })
    for (let i = 0; i < 4; i++) {
      const { answer, record } = await pool.ask()
      assert.deepEqual([answer, record.reason, record.error], ['a x', 'closed', undefined])
      assert.deepEqual(record.upstream, a.address)
    }
    const [dead, living] = pool.serverStats()
    assert.deepEqual(dead, { flows: 0, flowsTotal: 1, failures: 1, up: 0 })
    assert.deepEqual(living, { flows: 0, flowsTotal: 4, failures: 0, up: 1 })
  })
}

test('where all are down a flow fails at once, and its record says so', async () => {
  await using pool = await startPool([NOWHERE, { ...NOWHERE, port: 2 }])
  const first = await pool.ask()
  assert.deepEqual(
    [first.answer, first.record.reason, first.record.error],
    ['ECONNRESET', 'dial-refused', 'ECONNREFUSED'],
  )
  const { answer, record } = await pool.ask()
  assert.deepEqual([answer, record.reason], ['ECONNRESET', 'dial-failed'])
  assert.equal(record.error, 'pool web: none of its 2 servers is up')
})

test('checks tell of a server before a flow meets it, and of one that is back', async () => {
  await using a = await named('a')
  const b = await named('b')
  await using pool = await startPool([a.address, b.address], { healthMs: 500 })
  await b[Symbol.asyncDispose]()
  const text = formatEndpoint(b.address)
  await until(() => pool.notes.length === 1, 'a note')
  // a reset: its listener closed while a check waited in its backlog
  assert.match(pool.notes[0]!, new RegExp(`^pool web: ${text} does not answer: ECONN(?:REFUSED|RESET)$`))
  assert.deepEqual([(await pool.ask()).answer, (await pool.ask()).answer], ['a x', 'a x'])
  assert.deepEqual(
    pool.serverStats().map(({ up, failures }) => [up, failures]),
    [
      [1, 0],
      [0, 0],
    ],
  )
  const again = await startServer((socket) => void socket.resume(), b.address.port)
  await until(() => pool.notes.length === 2, 'another note')
  assert.equal(pool.notes[1], `pool web: ${text} answers again`)
  assert.equal(pool.serverStats()[1]!.up, 1)
  await again[Symbol.asyncDispose]()
})

test('another policy keeps what is known of a pool that stays, and lets go of one that does not', async () => {
  await using a = await named('a')
  await using pool = await startPool([a.address])
  await pool.ask()
  await pool.proxy.usePolicy({ ...pool.policy })
  assert.equal(pool.serverStats()[0]!.flowsTotal, 1)
  await pool.proxy.usePolicy(NO_POLICY)
  assert.deepEqual(pool.proxy.stats().pools, {})
})

test('more new flows than a rule lets through are reset', async () => {
  await using a = await named('a')
  await using pool = await startPool([a.address], {
    limit: { per: 'client', newFlows: { intervalMs: 3_600_000, burst: 2 }, bytes: undefined },
  })
  const answers = [await pool.ask(), await pool.ask(), await pool.ask()]
  assert.deepEqual(
    answers.map(({ answer }) => answer),
    ['a x', 'a x', 'ECONNRESET'],
  )
  const { reason, refused, upstream } = answers[2]!.record
  assert.deepEqual([reason, refused, upstream], ['policy-limit', true, undefined])
  const client = pool.connect()
  await whenClosed(client.resume())
  assert.equal(pool.proxy.stats().endedBy['policy-limit'], 2)
})
