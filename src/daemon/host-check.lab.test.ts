import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { dig, WITHOUT_DIG } from '../apps/dns/dig.fixture.ts'
import { DnsServer } from '../apps/dns/server.fixture.ts'
import { crypto, sealed } from '../inspect/quic.fixture.ts'
import { helloMessage, inRecords, protocols, serverName } from '../inspect/tls-client-hello.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

const { z } = ADDRESSES[4]
const NAME_SERVER = '10.0.4.20'
/** What the zone has: `moved.example` has another address each time, `silent.example` no answer. */
const ZONE: Readonly<Record<string, string>> = {
  'good.example': z,
  'elsewhere.example': '192.0.2.7',
  'told.example': z,
  'late.example': z,
}
const folder = mkdtempSync(join(tmpdir(), 'limpid-host-check-'))
const file = join(folder, 'limpid.yaml')
let lab: Topology
let limpid: LimpidProcess
let names: DnsServer
const servers: AsyncDisposable[] = []
/** Datagrams at the server. */
let got: Buffer[] = []

/** Each mode, and what a rule makes of where a flow goes. */
const policyOf = (hostCheck: string): string => `
listeners:
  - { name: all, source: client, protocols: [tcp, udp], exclude: { ports: 53 } }
  - { name: names, protocols: [tcp, udp], ports: 53, dns: { upstreams: ${NAME_SERVER} } }
policy:
  hostCheck: ${hostCheck}
  rules:
    - { name: sent, hosts: .sent.example, then: forward, to: "${z}:8080" }
    - { name: blocked, hosts: blocked.example, then: reject }
`

async function use(hostCheck: 'off' | 'log' | 'enforce'): Promise<void> {
  writeFileSync(file, policyOf(hostCheck))
  const reloads = () => limpid.stderr.match(/policy reloaded/g)?.length ?? 0
  const before = reloads()
  limpid.child.kill('SIGHUP')
  await until(() => reloads() > before, 'the reload')
}

function answering(text: string) {
  return (socket: Socket): void => {
    socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}`))
  }
}

before(async () => {
  lab = await raiseTopology()
  await lab.z.run('ip', ['address', 'add', `${NAME_SERVER}/24`, 'dev', 'z-x'])
  let moves = 0
  names = await DnsServer.open(lab.z, NAME_SERVER, (name, type) => {
    if (name === 'silent.example') return undefined
    const data = name === 'moved.example' ? (moves++ % 2 === 0 ? '192.0.2.8' : z) : ZONE[name]
    if (data === undefined) return { nxdomain: true }
    return { answers: type === 'A' ? [{ type: 'A', name, ttl: 1, data }] : [] }
  })
  servers.push(
    await serve(lab.z, { address: z, port: 80 }, answering('from 80')),
    await serve(lab.z, { address: z, port: 8080 }, answering('from 8080')),
  )
  const datagrams = lab.z.datagramSocket({ address: z, port: 443 })
  datagrams.on('message', (bytes: Buffer) => got.push(bytes))
  servers.push({ [Symbol.asyncDispose]: async () => void datagrams.close() })
  writeFileSync(file, policyOf('enforce'))
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  for (const server of servers) await server[Symbol.asyncDispose]()
  await names[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

beforeEach(async () => {
  await sleep(20)
  limpid.skipRecords()
  got = []
})

/** What comes of a request that names `host` at Z: the page, or how the connection ended. */
async function ask(host: string): Promise<string> {
  const client = lab.y.connect({ address: z, port: 80 })
  let text = ''
  client.on('data', (chunk) => {
    text += chunk
  })
  client.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  const { failure } = await receiveAll(client)
  client.destroy()
  return failure ?? text.split('\r\n\r\n')[1]!
}

/** The next record of a TCP flow: sessions of DNS end when they are idle. */
async function nextFlow(): Promise<FlowRecord> {
  for (;;) {
    const record = await limpid.nextRecord()
    if (record.protocol === 'tcp') return record
  }
}

async function checked(host: string): Promise<unknown[]> {
  const page = await ask(host)
  const { hostChecked, reason } = await nextFlow()
  return [page, hostChecked, reason]
}

test('a host that has the address goes on, and one that has another, or none, is turned away', async () => {
  assert.deepEqual(await checked('good.example'), ['from 80', 'resolved', 'closed'])
  for (const host of ['elsewhere.example', 'nobody.example']) {
    assert.deepEqual(await checked(host), ['ECONNRESET', 'mismatch', 'host-mismatch'])
  }
  await until(
    () => /asks for \S+\.example at 10\.0\.4\.2:80, which is not an address of it/.test(limpid.stderr),
    'a note',
  )
})

test('when no name server answers the flow is turned away after some seconds, and others are not kept waiting', async () => {
  const startedAt = performance.now()
  const silent = ask('silent.example')
  await sleep(50)
  assert.equal(await ask('good.example'), 'from 80')
  assert.ok(performance.now() - startedAt < 2_000)
  assert.equal(await silent, 'ECONNRESET')
  const other = await nextFlow()
  const record = await nextFlow()
  assert.equal(other.host, 'good.example')
  assert.deepEqual([record.host, record.hostChecked, record.reason], ['silent.example', 'unresolved', 'host-mismatch'])
  assert.ok(performance.now() - startedAt < 4_500)
})

test('an address that rotating answers did not have is asked for again', async () => {
  assert.deepEqual(await checked('moved.example'), ['ECONNRESET', 'mismatch', 'host-mismatch'])
  await sleep(1_000)
  assert.deepEqual(await checked('moved.example'), ['from 80', 'resolved', 'closed'])
})

test('what the client has learnt from our DNS needs no question', { skip: WITHOUT_DIG }, async () => {
  assert.deepEqual((await dig(lab.y, '@203.0.113.9', 'told.example', 'A')).data, [z])
  const before = names.heard.length
  assert.deepEqual(await checked('told.example'), ['from 80', 'learnt', 'closed'])
  assert.equal(names.heard.length, before)
})

test('an address as Host is compared with the one that was dialled; without a name nothing is', async () => {
  assert.deepEqual(await checked(z), ['from 80', 'literal', 'closed'])
  assert.deepEqual(await checked('192.0.2.9'), ['ECONNRESET', 'mismatch', 'host-mismatch'])
  const client = lab.y.connect({ address: z, port: 80 })
  client.write('\x13BitTorrent protocol')
  await receiveAll(client)
  client.destroy()
  const { hostChecked, reason } = await nextFlow()
  assert.deepEqual([hostChecked, reason], [undefined, 'closed'])
})

test('where a rule says where it goes, the address decides nothing; a rule that refuses comes first', async () => {
  assert.deepEqual(await checked('x.sent.example'), ['from 8080', undefined, 'closed'])
  assert.deepEqual(await checked('blocked.example'), ['ECONNRESET', undefined, 'policy'])
})

test('a client that is silent at first is compared when it speaks, before a byte of it goes on', async () => {
  const client = lab.y.connect({ address: z, port: 80 })
  await once(client, 'connect')
  await sleep(500)
  client.write('GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n')
  await receiveAll(client)
  const { hostChecked, reason, bytesClientToUpstream } = await nextFlow()
  assert.deepEqual([hostChecked, reason, bytesClientToUpstream], ['mismatch', 'host-mismatch', 0])
  client.destroy()
})

const curl = { skip: isInstalled('curl') ? false : 'curl is not installed' }

test('curl that was told a false address is refused', curl, async () => {
  for (const [host, code] of [
    ['good.example', 0],
    ['elsewhere.example', 56],
  ] as const) {
    const args = ['-s', '-o', '/dev/null', '--max-time', '10', '--resolve', `${host}:80:${z}`, `http://${host}/`]
    const child = lab.y.spawn('curl', args, { stdio: 'ignore' })
    assert.deepEqual(await once(child, 'close'), [code, null]) // CURLE_RECV_ERROR: reset
  }
})

test('QUIC: a hello is held back until its host is known, and goes on by itself', async () => {
  const hello = (name: string, dcid: string) =>
    sealed(crypto(helloMessage({ extensions: [serverName(name), protocols('h3')] })), {
      dcid: Buffer.from(dcid, 'hex'),
    })
  const client = lab.y.datagramSocket({ address: ADDRESSES[4].y, port: 0 })
  client.on('error', () => {}) // ICMP: refused
  const dropped = async () => (await limpid.stats()).datagramsDropped['host-mismatch'] ?? 0
  const first = hello('quic.good.example', '0011223344556677')
  client.send(first, 443, z)
  await until(() => names.heard.some(({ name }) => name === 'quic.good.example'), 'the question')
  const before = await dropped()
  assert.deepEqual([before, got.length], [1, 0]) // it does not exist
  const second = hello('late.example', '1011223344556677')
  client.send(second, 443, z)
  await until(() => got.length === 1, 'the hello at the server')
  assert.deepEqual(got[0], Buffer.from(second))
  client.send(hello('elsewhere.example', '2011223344556677'), 443, z) // another connection in that session
  await until(() => limpid.records.some(({ reason }) => reason === 'host-mismatch'), 'the end of the session')
  assert.equal(got.length, 1)
  client.close()
})

test('a ClientHello is compared as a Host is', async () => {
  const client = lab.y.connect({ address: z, port: 8080 })
  client.write(inRecords(helloMessage({ extensions: [serverName('elsewhere.example')] })))
  assert.equal((await receiveAll(client)).failure, 'ECONNRESET')
  assert.equal((await nextFlow()).reason, 'host-mismatch')
})

test('with log it goes on and is told; with off nobody asks', async () => {
  await use('log')
  assert.deepEqual(await checked('elsewhere.example'), ['from 80', 'mismatch', 'closed'])
  const { hostChecks } = await limpid.stats()
  assert.ok(hostChecks.mismatch >= 6 && hostChecks.learnt >= (WITHOUT_DIG ? 0 : 1), JSON.stringify(hostChecks))
  await use('off')
  const before = names.heard.length
  assert.deepEqual(await checked('elsewhere.example'), ['from 80', undefined, 'closed'])
  assert.equal(names.heard.length, before)
})
