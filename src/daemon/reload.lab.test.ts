import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, PATIENCE_MS, receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'
import { enterNetNamespace } from '../sys/namespace.ts'
import { askControl } from './ask-control.ts'
import type { Reloaded } from './reloads.ts'
import type { ServiceStats } from './run.ts'

await enterNamespaces()

const { z } = ADDRESSES[4]
const RELOADS = 50
const folder = mkdtempSync(join(tmpdir(), 'limpid-reload-'))
const file = join(folder, 'limpid.yaml')
const list = join(folder, 'list.txt')
let lab: Topology
const servers: LabServer[] = []

const LISTENERS = 'listeners: [{ name: all, source: client }]\n'
const OPEN = `${LISTENERS}policy: { rules: [{ ports: 82, then: reject }] }\n`
const CLOSED =
  `${LISTENERS}policy: { lists: { here: ${list} }, rules: [{ name: shut, ports: 81, lists: here, then: reject }] }\n`.replace(
    'lists: here,',
    'lists: [here],',
  )
const BAD: readonly [text: string, code: string, why: RegExp][] = [
  [
    `${LISTENERS}policy:\n  rules: [{ then: refuse }]\n`,
    'LIMPID_CONFIG',
    /limpid\.yaml:3:19: expected forward, via, handle, reject or bypass/,
  ],
  [`${LISTENERS}policy: { rules: [`, 'LIMPID_CONFIG', /limpid\.yaml:2:\d+: /],
  [CLOSED.replace(list, join(folder, 'gone.txt')), 'LIMPID_LIST', /gone\.txt: there is no such file/],
  [
    'listeners: [{ name: other }]\npolicy:\n  rules: [{ listeners: [other], then: reject }]\n',
    'LIMPID_CONFIG',
    /limpid\.yaml:3:24: expected all, found "other"/,
  ],
]

before(async () => {
  lab = await raiseTopology()
  enterNetNamespace(lab.x.namespaceFd) // the control socket's name holds the namespace
  writeFileSync(list, `${z}\n`)
  chmodSync(list, 0o644)
  const echo = (socket: Socket): void =>
    void socket.on('data', (chunk) => socket.write(chunk)).on('end', () => socket.end())
  servers.push(await serve(lab.z, { address: z, port: 80 }, echo), await serve(lab.z, { address: z, port: 81 }, echo))
})

after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

async function exchanged(client: Socket, text: string): Promise<string> {
  client.write(text)
  const [answer] = (await once(client, 'data', { signal: AbortSignal.timeout(PATIENCE_MS) })) as [Buffer]
  return answer.toString()
}

/** Whether port 81 is served now. */
async function isServed(): Promise<boolean> {
  const client = lab.y.connect({ address: z, port: 81 })
  client.write('?')
  client.once('data', () => client.end())
  return (await receiveAll(client)).bytes === 1
}

/** New flows one after the other, and kept ones that go on, until it is stopped. */
class Traffic implements AsyncDisposable {
  flows = 0
  exchanges = 0
  readonly failures: string[] = []
  #stopped = false
  readonly #done: Promise<unknown>

  constructor() {
    this.#done = Promise.all([this.#short(), this.#short(), this.#kept(), this.#kept()])
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#done
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #short(): Promise<void> {
    while (!this.#stopped) {
      const client = lab.y.connect({ address: z, port: 80 })
      client.write('short')
      client.once('data', () => client.end())
      const { bytes, failure } = await receiveAll(client)
      this.flows++
      if (bytes !== 5 || failure !== undefined) this.failures.push(`${bytes} bytes, ${failure}`)
    }
  }

  async #kept(): Promise<void> {
    const client = lab.y.connect({ address: z, port: 81 }) // decided before it was shut
    client.on('error', (error) => this.failures.push(error.message))
    this.flows++
    while (!this.#stopped && this.failures.length === 0) {
      const answer = await exchanged(client, 'kept').catch((error: Error) => error.message)
      if (answer !== 'kept') this.failures.push(answer)
      this.exchanges++
      await sleep(1)
    }
    client.destroy()
  }
}

for (const workers of [1, 2]) {
  test(`T38: ${RELOADS} reloads, good and bad, with ${workers} worker${workers === 1 ? '' : 's'}: no flow is lost, and decisions change at once`, async (t) => {
    writeFileSync(file, OPEN)
    await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file, '--workers', `${workers}`])
    assert.ok(await isServed())
    await using traffic = new Traffic()
    await until(() => traffic.exchanges > 10, 'traffic')
    let [good, bad, expected] = [0, 0, true]
    const tookMs: number[] = []
    for (let reload = 0; reload < RELOADS; reload++) {
      if (reload % 3 === 2) {
        const [text, code, why] = BAD[bad++ % BAD.length]!
        writeFileSync(file, text)
        await assert.rejects(askControl('POST', '/reload'), (error: { code: string; message: string }) => {
          assert.equal(error.code, code)
          assert.match(error.message, why)
          return true
        })
      } else {
        expected = !expected
        writeFileSync(file, expected ? OPEN : CLOSED)
        const startedAt = performance.now()
        const told = (await askControl('POST', '/reload')) as Reloaded
        tookMs.push(performance.now() - startedAt)
        assert.deepEqual(told, { rules: 1, lists: expected ? 0 : 1, needsRestart: [] })
        good++
      }
      assert.equal(await isServed(), expected, `after reload ${reload}`)
    }
    await traffic.stop()
    assert.deepEqual(traffic.failures, [])
    const stats = (await askControl('GET', '/stats')) as ServiceStats
    assert.deepEqual([stats.reloads, stats.reloadsFailed], [good, bad])
    assert.equal(stats.workerRestarts ?? 0, 0)
    assert.equal([...limpid.stderr.matchAll(/policy stays as it was: LIMPID_(?:CONFIG|LIST): /g)].length, bad)
    tookMs.sort((one, other) => one - other)
    t.diagnostic(
      `${traffic.flows} flows, ${traffic.exchanges} exchanges of kept ones; a reload took ${tookMs[tookMs.length >> 1]!.toFixed(0)} ms (median), ${tookMs.at(-1)!.toFixed(0)} ms at most`,
    )
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  })
}

test('a file of 1,000 rules is read again beside flows: no exchange waits for it', async (t) => {
  const rules = Array.from(
    { length: 1_000 },
    (_, at) => `    - { hosts: [h${at}.example], ports: ${1_000 + at}, then: reject }\n`,
  )
  writeFileSync(file, OPEN)
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  const client = lab.y.connect({ address: z, port: 81 })
  const tookMs: number[] = []
  const exchange = async (): Promise<void> => {
    const startedAt = performance.now()
    assert.equal(await exchanged(client, 'kept'), 'kept')
    tookMs.push(performance.now() - startedAt)
  }
  for (let warm = 0; warm < 50; warm++) await exchange()
  tookMs.length = 0
  const reloadMs = async (text: string, told: RegExp): Promise<number> => {
    writeFileSync(file, text)
    const startedAt = performance.now()
    limpid.child.kill('SIGHUP')
    while (!told.test(limpid.stderr)) {
      await exchange()
      await sleep(1)
    }
    return performance.now() - startedAt
  }
  const large = `${LISTENERS}policy:\n  rules:\n${rules.join('')}`
  const took = await reloadMs(large, /policy reloaded: 1000 rules/)
  const worst = Math.max(...tookMs)
  t.diagnostic(`${worst.toFixed(0)} ms is the longest of ${tookMs.length} exchanges, ${took.toFixed(0)} ms the reload`)
  assert.ok(worst < took / 2, `${worst} of ${took} ms`)
  await reloadMs(`${large}    - { then: refuse }\n`, /policy stays as it was: LIMPID_CONFIG: \S+limpid\.yaml:1004:15: /)
  await reloadMs(
    `${large}#${'x'.repeat(1_048_576)}`,
    /policy stays as it was: LIMPID_CONFIG: cannot read \S+: \d+ bytes are/,
  )
  const bomb = `${large}bypass: [&a [${'x,'.repeat(1_000)}]${', *a'.repeat(200)}]\n`
  await reloadMs(bomb, /policy stays as it was: LIMPID_CONFIG: \S+: expected at most 100 aliases, found more/)
  client.destroy()
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('SIGHUP reads the policy again, and what else has changed is told to need a restart', async () => {
  writeFileSync(file, OPEN)
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  writeFileSync(file, `${CLOSED}limits: { flows: 7 }\n`)
  limpid.child.kill('SIGHUP')
  await until(() => limpid.stderr.includes('policy reloaded'), 'reload')
  assert.match(limpid.stderr, /limpid: policy reloaded: 1 rule, 1 list; limits changed too, which needs a restart\n/)
  assert.equal(await isServed(), false)
  const { flowsLimit, reloads } = (await askControl('GET', '/stats')) as ServiceStats
  assert.notEqual(flowsLimit, 7)
  assert.equal(reloads, 1)
  writeFileSync(file, 'nonsense')
  limpid.child.kill('SIGHUP')
  await until(() => limpid.stderr.includes('stays as it was'), 'the reload that fails')
  assert.match(limpid.stderr, /policy stays as it was: LIMPID_CONFIG: \S+limpid\.yaml:1:1: /)
  assert.equal(await isServed(), false)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('limpid reload says what it did, and ends with 78 and the place where a file is wrong', async () => {
  writeFileSync(file, OPEN)
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  const reload = () => lab.x.run(process.execPath, [LIMPID_PROGRAM, 'reload'])
  writeFileSync(file, CLOSED)
  assert.equal(await reload(), 'policy reloaded: 1 rule, 1 list\n')
  writeFileSync(file, BAD[0]![0])
  await assert.rejects(reload(), /LIMPID_CONFIG: \S+limpid\.yaml:3:19: expected forward, via, handle, reject or bypass/)
  assert.match(
    await lab.x.run(process.execPath, [LIMPID_PROGRAM, 'stats']),
    /^policy {4}reloaded 1 time, 1 reload failed$/m,
  )
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('without a file there is nothing to read again, and it says so', async () => {
  await using limpid = await LimpidProcess.start(lab.x, ['run', '--intercept', 'tproxy', '--ports', '80'])
  await assert.rejects(
    askControl('POST', '/reload'),
    /there is no file to read again: this limpid run was started with flags/,
  )
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})
