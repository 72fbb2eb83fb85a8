import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve, until } from '../lab/traffic.fixture.ts'
import { enterNetNamespace } from '../sys/namespace.ts'
import { askControl } from './ask-control.ts'
import type { ServiceStats } from './run.ts'

await enterNamespaces()

const { z } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-shadow-'))
const live = join(folder, 'limpid.yaml')
const candidate = join(folder, 'candidate.yaml')
let lab: Topology
const servers: LabServer[] = []

const LISTENERS = 'listeners: [{ name: all, source: client, protocols: [tcp, udp] }]\n'
const CANDIDATE = `policy:
  rules:
    - { name: no-82, ports: 82, then: reject }
    - { name: no-ads, hosts: [.ads.example], then: reject, by: forbidden }
    - { name: no-9000, ports: 9000, then: reject }
`

before(async () => {
  lab = await raiseTopology()
  enterNetNamespace(lab.x.namespaceFd) // the control socket's name holds the namespace
  servers.push(await serve(lab.z, { address: z, port: 2525 }, (socket) => void socket.end('banner')))
  for (const port of [80, 82]) {
    servers.push(
      await serve(lab.z, { address: z, port }, (socket) => void socket.once('data', () => socket.end('served'))),
    )
  }
  writeFileSync(live, `${LISTENERS}policy: { rules: [{ name: no-81, ports: 81, then: reject }] }\n`)
  writeFileSync(candidate, CANDIDATE)
})

after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** How many bytes come back. */
async function ask(port: number, text: string): Promise<number> {
  const client = lab.y.connect({ address: z, port })
  client.write(text)
  const { bytes } = await receiveAll(client)
  client.end()
  return bytes
}

async function shadowStats(): Promise<NonNullable<ServiceStats['shadow']>> {
  const { shadow } = (await askControl('GET', '/stats')) as ServiceStats
  assert.ok(shadow !== undefined)
  return shadow
}

const GET = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`

for (const workers of [1, 2]) {
  test(`a shadow policy acts never, and is told where it differs, with ${workers} worker${workers === 1 ? '' : 's'}`, async () => {
    await using limpid = await LimpidProcess.start(lab.x, [
      ...['run', '-c', live, '--shadow', candidate, '--workers', `${workers}`],
    ])
    assert.equal(await ask(80, GET('www.example')), 6)
    assert.equal((await limpid.nextRecord()).shadow, undefined)
    assert.equal(await ask(82, 'x'), 6, 'served, whatever the shadow policy says')
    assert.deepEqual((await limpid.nextRecord()).shadow, { rule: 'no-82', decision: 'reject by reset' })
    assert.equal(await ask(81, 'x'), 0, 'the other policy acts')
    const refused = await limpid.nextRecord()
    assert.equal(refused.rule, 'no-81')
    assert.equal(await ask(80, GET('www.ads.example')), 6)
    const { rule, detected, shadow } = await limpid.nextRecord()
    assert.deepEqual([rule, detected], [undefined, undefined], 'it looks into first bytes for itself alone')
    assert.deepEqual(shadow, { rule: 'no-ads', decision: 'reject by forbidden' })
    const silent = lab.y.connect({ address: z, port: 2525 })
    assert.equal((await receiveAll(silent)).bytes, 6)
    silent.end()
    assert.equal((await limpid.nextRecord()).shadow, undefined, 'the server speaks, and the client never')
    const { decided, differed, undecided, byRules } = await shadowStats()
    // whether first bytes to port 81 were there when it was refused is up to the network
    assert.deepEqual([decided + undecided, differed - (byRules['no-81 → otherwise'] ?? 0)], [5, 2])
    assert.ok(undecided <= 1)
    assert.equal(byRules['otherwise → no-82'], 1)
    assert.equal(byRules['otherwise → no-ads'], 1)
    assert.match(
      limpid.stderr,
      /shadow differs: tcp [\d.]+ → [\d.]+:82: forward by otherwise, the shadow policy says reject by reset by no-82\n/,
    )
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  })
}

test('UDP sessions are compared as well', async () => {
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', live, '--shadow', candidate])
  const client = lab.y.datagramSocket({ address: ADDRESSES[4].y, port: 0 })
  client.send('hello', 9_000, z)
  await until(() => limpid.stderr.includes('shadow differs: udp'), 'a note')
  const { decided, differed, byRules } = await shadowStats()
  assert.deepEqual([decided, differed, byRules], [1, 1, { 'otherwise → no-9000': 1 }])
  client.close()
  await once(client, 'close')
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.deepEqual(limpid.records[0]?.shadow, { rule: 'no-9000', decision: 'reject by reset' })
})

test('a reload reads the candidate again, and one that is wrong changes neither policy', async () => {
  writeFileSync(candidate, 'policy: { rules: [] }\n')
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', live, '--shadow', candidate])
  assert.equal(await ask(82, 'x'), 6)
  assert.equal((await limpid.nextRecord()).shadow, undefined)
  writeFileSync(candidate, CANDIDATE)
  assert.deepEqual(await askControl('POST', '/reload'), { rules: 1, lists: 0, shadowRules: 3, needsRestart: [] })
  assert.equal(await ask(82, 'x'), 6)
  assert.equal((await limpid.nextRecord()).shadow?.rule, 'no-82')
  writeFileSync(candidate, 'policy: { rules: [{ then: rejct }] }\n')
  await assert.rejects(
    askControl('POST', '/reload'),
    /candidate\.yaml:1:27: expected forward, via, handle, reject or bypass, found "rejct"/,
  )
  assert.equal(await ask(82, 'x'), 6)
  assert.equal((await limpid.nextRecord()).shadow?.rule, 'no-82')
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})
