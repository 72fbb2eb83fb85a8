import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const SLOW = 900
const HELLO_MS = 3_000
const endpoint = { address: ADDRESSES[4].z, port: 80 }
const folder = mkdtempSync(join(tmpdir(), 'limpid-slow-'))
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(async () => {
  await lab.close()
  rmSync(folder, { recursive: true })
})

test('T5: 900 clients whose first message never ends keep nobody waiting, and none is left when their time is over', async () => {
  const file = join(folder, 'limpid.yaml')
  writeFileSync(
    file,
    `
listeners: [{ name: web, source: client }]
policy:
  peek: { silence: 10s, hello: ${HELLO_MS}ms } # a busy machine sends their first bytes late
  rules: [{ name: blocked, hosts: blocked.example, then: reject }]
`,
  )
  await using server = await serve(lab.z, endpoint, (socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok'))
  })
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  const settled = async () => limpid.descriptors() - 2 * (await limpid.stats()).pipesOpen
  await fetchOnce()
  await sleep(300)
  const alone: number[] = []
  for (let i = 0; i < 20; i++) alone.push(await fetchOnce())
  const before = await settled()
  const slow: Socket[] = []
  for (let i = 0; i < SLOW; i++) {
    const client = lab.y.connect(endpoint)
    client.on('error', () => {}).write('GET / HTTP/1.1\r\nHost: ')
    slow.push(client)
  }
  await until(() => limpid.descriptors() >= before + SLOW, 'all of them at the proxy')
  const delays: number[] = []
  for (let i = 0; i < 20; i++) delays.push(await fetchOnce())
  const median = (times: number[]) => times.sort((a, b) => a - b)[10]!.toFixed(1)
  console.log(`T5: a flow takes ${median(alone)} ms alone, ${median(delays)} ms beside ${SLOW} slow ones`)
  await limpid.recorded(41 + SLOW, HELLO_MS + 20_000)
  const ended = limpid.records.filter(({ reason }) => reason === 'hello-timeout')
  assert.equal(ended.length, SLOW)
  assert.equal(server.peers.length, 41, 'none of them was dialled for')
  await until(() => limpid.descriptors() <= before + 1, 'their descriptors closed')
  assert.equal((await limpid.stats()).flowsOpen, 0)
  for (const client of slow) client.destroy()
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

/** Milliseconds of a whole flow. */
async function fetchOnce(): Promise<number> {
  const startedAt = performance.now()
  const client = lab.y.connect(endpoint)
  client.end('GET / HTTP/1.1\r\nHost: ok.example\r\n\r\n')
  assert.match((await receiveAll(client)).failure ?? 'none', /none/)
  return performance.now() - startedAt
}
