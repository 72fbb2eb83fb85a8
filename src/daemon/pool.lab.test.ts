import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve, sleep } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const { y, z } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-pool-'))
let lab: Topology
let limpid: LimpidProcess
const servers = new Map<number, LabServer>()

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const CONFIG = {
  workers: 2,
  listeners: [{ name: 'all', source: 'client', protocols: ['tcp', 'udp'] }],
  policy: {
    pools: {
      web: { servers: [`${z}:8201`, `${z}:8202`], health: '500ms' },
      echo: { servers: [`${z}:8203`, `${z}:8204`], balance: 'client-hash', health: 'off' },
    },
    rules: [
      { name: 'web', ports: 80, then: 'forward', to: 'pool:web' },
      { name: 'echo', ports: 7, then: 'forward', to: 'pool:echo' },
      { name: 'few', ports: 81, then: 'forward', to: 'pool:web', limit: { newFlows: '1/h', per: 'client', burst: 5 } },
    ],
  },
}
// biome-ignore-end lint/suspicious/noThenProperty: as above

before(async () => {
  lab = await raiseTopology()
  for (const port of [8201, 8202]) await start(port)
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, JSON.stringify(CONFIG))
  chmodSync(folder, 0o755)
  chmodSync(file, 0o644)
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  for (const server of servers.values()) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** On Z: it says who it is, and whom it saw. */
async function start(port: number): Promise<void> {
  const server = await serve(lab.z, { address: z, port }, (socket) => {
    socket.on('data', () => socket.end(`${port} saw ${socket.remoteAddress}`))
  })
  servers.set(port, server)
}

async function ask(port: number): Promise<string> {
  const client = lab.y.connect({ address: z, port })
  let text = ''
  client.on('data', (chunk) => {
    text += chunk
  })
  client.end('x')
  const { failure } = await receiveAll(client)
  client.destroy()
  return failure ?? text
}

async function askMany(count: number, port: number): Promise<Map<string, number>> {
  const answers = new Map<string, number>()
  for (let i = 0; i < count; i++) {
    const answer = await ask(port)
    answers.set(answer, (answers.get(answer) ?? 0) + 1)
  }
  return answers
}

test('two workers share out the flows of a pool, a dead server costs none of them, and it comes back', async () => {
  const both = await askMany(40, 80)
  assert.deepEqual([...both.keys()].sort(), [`8201 saw ${y}`, `8202 saw ${y}`])
  // each worker takes turns for itself
  assert.ok(Math.min(...both.values()) >= 19, JSON.stringify([...both]))
  await servers.get(8202)![Symbol.asyncDispose]()
  assert.deepEqual([...(await askMany(40, 80)).keys()], [`8201 saw ${y}`])
  while (!/pool web: 10\.0\.4\.2:8202 does not answer: ECONN/.test(limpid.stderr)) await sleep(20)
  const down = (await limpid.stats()).pools.web!
  assert.deepEqual([down[`${z}:8201`]!.up, down[`${z}:8202`]!.up], [2, 0])
  assert.ok(down[`${z}:8201`]!.flowsTotal >= 59)
  await start(8202)
  while ((await limpid.stats()).pools.web![`${z}:8202`]!.up < 2) await sleep(100)
  assert.equal((await askMany(10, 80)).size, 2)
})

test('the datagrams of a client stay with their server', async () => {
  const answers = new Set<string>()
  const echoes = [8203, 8204].map((port) => lab.z.datagramSocket({ address: z, port }))
  for (const echo of echoes) {
    echo.on('message', (_, { address, port }) => echo.send(`${echo.address().port}`, port, address))
  }
  for (let i = 0; i < 6; i++) {
    const socket = lab.y.datagramSocket({ address: y, port: 0 })
    socket.send('x', 7, z)
    const [bytes] = (await once(socket, 'message')) as [Buffer]
    answers.add(bytes.toString())
    socket.close()
  }
  assert.equal(answers.size, 1)
  for (const echo of echoes) echo.close()
  const counted = Object.values((await limpid.stats()).pools.echo!)
  assert.equal(
    counted.reduce((sum, { flowsTotal }) => sum + flowsTotal, 0),
    6,
  )
})

test('what is beyond a limit is reset', async () => {
  const answers = await askMany(30, 81)
  const through = 30 - (answers.get('ECONNRESET') ?? 0)
  // two workers: the burst, or their shares of it with what chance may need
  assert.ok(through >= 5 && through <= 10, `${through}`)
  assert.equal((await limpid.stats()).endedBy['policy-limit'], 30 - through)
})
