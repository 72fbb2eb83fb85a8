import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { serve, sleep, until } from '../lab/traffic.fixture.ts'
import { ATTEMPTS, type Attempt } from './attempts.fixture.ts'

await enterNamespaces()

const { z } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-attempts-'))
let lab: Topology
let limpid: LimpidProcess
const servers: AsyncDisposable[] = []
/** What the servers have got, in hexadecimal. */
let got = ''

before(async () => {
  lab = await raiseTopology()
  const file = join(folder, 'limpid.yaml')
  writeFileSync(
    file,
    `
listeners: [{ name: all, source: client, protocols: [tcp, udp], timeouts: { session: 1s } }]
policy:
  peek: { silence: 300ms, hello: 1s }
  rules:
    - { name: blocked, hosts: .blocked.example, then: reject }
    - { name: tls-alone, protocols: tcp, ports: 443, detected: [http1, http2, ssh, socks, unknown], then: reject }
`,
  )
  for (const port of [80, 443]) {
    servers.push(
      await serve(lab.z, { address: z, port }, (socket) => {
        socket.on('data', (bytes: Buffer) => {
          got += bytes.toString('hex')
          socket.end()
        })
      }),
    )
  }
  const datagrams = lab.z.datagramSocket({ address: z, port: 443 })
  datagrams.on('message', (bytes: Buffer) => {
    got += bytes.toString('hex')
  })
  servers.push({ [Symbol.asyncDispose]: async () => void datagrams.close() })
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

for (const attempt of ATTEMPTS) {
  test(`${attempt.name}: ${attempt.outcome}`, async () => {
    await sleep(20)
    limpid.skipRecords()
    got = ''
    if (attempt.protocol === 'tcp') await tryTcp(attempt)
    else await tryUdp(attempt)
  })
}

async function tryTcp({ port, steps, outcome }: Attempt): Promise<void> {
  const client = lab.y.connect({ address: z, port })
  client.on('error', () => {}).setNoDelay(true)
  await once(client, 'connect')
  for (const step of steps) {
    if (typeof step === 'number') await sleep(step)
    else if (step === 'fin') client.end()
    else if (!client.destroyed) client.write(step)
  }
  if (outcome === 'passes') await until(() => got !== '', 'what was sent at the server')
  client.resume()
  if (outcome === 'passes') client.end()
  const { reason } = await limpid.nextRecord()
  assert.equal(reason, outcome === 'passes' ? 'closed' : outcome)
  if (outcome !== 'passes') assert.equal(got, '', 'nothing of a refused client reaches a server')
  client.destroy()
}

async function tryUdp({ port, steps, outcome }: Attempt): Promise<void> {
  const client = lab.y.datagramSocket({ address: ADDRESSES[4].y, port: 0 })
  client.on('error', () => {}) // ICMP: refused
  const refusedBefore = (await limpid.stats()).datagramsDropped.policy ?? 0
  for (const step of steps) {
    if (typeof step === 'number') await sleep(step)
    else if (step !== 'fin') client.send(step, port, z)
  }
  const last = steps.filter((step) => typeof step === 'object').at(-1) as Uint8Array
  if (outcome === 'passes')
    await until(() => got.includes(Buffer.from(last).toString('hex')), 'the datagram at the server')
  else if (outcome === 'held') {
    await until(() => got !== '', 'the hello that may go on')
    await sleep(100)
    const arrived = steps.filter((step) => typeof step === 'object' && got.includes(Buffer.from(step).toString('hex')))
    assert.equal(arrived.length, 1, 'no part of a hello that is not whole has reached the server')
  } else {
    const deadlineAt = performance.now() + 5_000
    while (((await limpid.stats()).datagramsDropped.policy ?? 0) === refusedBefore) {
      assert.ok(performance.now() < deadlineAt, 'no datagram was refused')
    }
    assert.ok(!got.includes(Buffer.from(last).toString('hex')), 'the datagram has reached the server')
  }
  client.close()
}

test('docs/inspection/attempts.md has each attempt, with what becomes of it', () => {
  const text = readFileSync(new URL('../../docs/inspection/attempts.md', import.meta.url), 'utf8')
  const rows = [...text.matchAll(/^\| (?!attempt|-)([^|]+?) +\| `([a-z-]+)` +\|/gm)].map(([, name, outcome]) => [
    name,
    outcome,
  ])
  assert.deepEqual(
    rows,
    ATTEMPTS.map(({ name, outcome }) => [name, outcome]),
  )
})
