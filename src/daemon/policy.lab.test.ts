import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

const { z } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-policy-'))
const list = join(folder, 'blocked.txt')
let lab: Topology
let limpid: LimpidProcess
let tlsServer: ChildProcess | undefined
const servers: LabServer[] = []

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const CONFIG = {
  listeners: [{ name: 'all', source: 'client' }],
  policy: {
    lists: { blocked: list },
    peek: { silence: '300ms', hello: '1s' },
    rules: [
      { name: 'no-telnet', ports: 23, then: 'reject' },
      { name: 'blocked', lists: ['blocked'], then: 'reject', by: 'forbidden' },
      { name: 'moved', hosts: ['.moved.example'], then: 'forward', to: `${z}:8080`, source: 'proxy' },
      { name: 'tls-alone', ports: 443, detected: ['http1', 'ssh', 'unknown'], then: 'reject' },
      { name: 'no-ntp', ports: 123, protocols: 'udp', then: 'reject' },
    ],
  },
}
// biome-ignore-end lint/suspicious/noThenProperty: as above

function answering(text: string) {
  return (socket: Socket): void => {
    socket.once('data', () => {
      socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\nconnection: close\r\n\r\n${text}`)
    })
  }
}

before(async () => {
  lab = await raiseTopology()
  writeFileSync(list, '# names that nobody needs\nblocked.example\n*.ads.example\n')
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, JSON.stringify(CONFIG))
  for (const path of [list, file]) chmodSync(path, 0o644)
  servers.push(
    await serve(lab.z, { address: z, port: 80 }, answering('from 80')),
    await serve(lab.z, { address: z, port: 8080 }, answering('from 8080')),
    await serve(lab.z, { address: z, port: 23 }, answering('telnet')),
    await serve(lab.z, { address: z, port: 2525 }, (socket) => {
      socket.write('220 mail.example ESMTP\r\n')
      socket.once('data', () => socket.end('221 bye\r\n'))
    }),
  )
  if (isInstalled('openssl')) {
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
    const subject = ['-subj', '/CN=ok.example', '-days', '2']
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
        ...['-keyout', key, '-out', certificate, ...subject],
      ],
      { stdio: 'ignore' },
    )
    const args = ['s_server', '-accept', `${z}:443`, '-cert', certificate, '-key', key, '-www', '-quiet']
    tlsServer = lab.z.spawn('openssl', args, { stdio: 'ignore' })
  }
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  tlsServer?.kill()
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

beforeEach(async () => {
  await sleep(20)
  limpid.skipRecords()
})

const curl = { skip: isInstalled('curl') ? false : 'curl is not installed' }
const tls = { skip: isInstalled('curl') && isInstalled('openssl') ? false : 'curl or openssl is not installed' }

/** What curl says, or `exit CODE`. */
async function fetchBy(url: string, ...flags: string[]): Promise<string> {
  const { hostname, port, protocol } = new URL(url)
  const to = `${hostname}:${port || (protocol === 'https:' ? 443 : 80)}:${z}`
  const child = lab.y.spawn('curl', ['-sk', '--max-time', '10', '--resolve', to, ...flags, url], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return code === 0 ? text : `exit ${code}`
}

test('a host that no rule knows is forwarded, and its record says what was asked for', curl, async () => {
  assert.equal(await fetchBy('http://ok.example/'), 'from 80')
  const { rule, detected, host, reason } = await limpid.nextRecord()
  assert.deepEqual([rule, detected, host, reason], [undefined, 'http1', 'ok.example', 'closed'])
})

test('a host of a list is forbidden with a page that names the rule', curl, async () => {
  assert.match(await fetchBy('http://Blocked.Example./', '-w', '%{http_code}'), /rule blocked\)\.\n403$/)
  assert.equal(await fetchBy('http://x.y.ads.example/', '-o', '/dev/null', '-w', '%{http_code}'), '403')
  const { rule, host, reason, refused } = await limpid.nextRecord()
  assert.deepEqual([rule, host, reason, refused], ['blocked', 'blocked.example', 'policy', true])
})

test('a rule sends a host elsewhere, and says with whose address', curl, async () => {
  assert.equal(await fetchBy('http://www.moved.example/'), 'from 8080')
  const record = await limpid.nextRecord()
  assert.deepEqual([record.rule, record.upstream, record.source], ['moved', { address: z, port: 8080 }, 'proxy'])
  assert.deepEqual(record.originalDst, { address: z, port: 80 })
})

for (const version of ['--tls-max=1.2', '--tlsv1.3']) {
  test(`SNI decides, ${version}`, tls, async () => {
    const flags = version.split('=')
    assert.match(await fetchBy('https://ok.example/', ...flags), /s_server/)
    const allowed = await limpid.nextRecord()
    assert.deepEqual([allowed.detected, allowed.host, allowed.reason], ['tls', 'ok.example', 'closed'])
    assert.equal(await fetchBy('https://blocked.example/', ...flags), 'exit 35') // CURLE_SSL_CONNECT_ERROR: reset
    const refused = await limpid.nextRecord()
    assert.deepEqual([refused.rule, refused.detected, refused.host], ['blocked', 'tls', 'blocked.example'])
  })
}

test('a change of a list decides the flows after it, without a restart', curl, async () => {
  assert.equal(await fetchBy('http://later.example/'), 'from 80')
  appendFileSync(list, 'later.example\n')
  const changedAt = performance.now()
  while ((await fetchBy('http://later.example/', '-o', '/dev/null', '-w', '%{http_code}')) !== '403') {
    assert.ok(performance.now() - changedAt < 10_000, 'the list is not read')
    await sleep(50)
  }
})

test('a port, and a protocol on the wrong port, are turned away with a reset', async () => {
  const telnet = lab.y.connect({ address: z, port: 23 })
  assert.equal((await receiveAll(telnet)).failure, 'ECONNRESET')
  assert.equal((await limpid.nextRecord()).rule, 'no-telnet')
  const ssh = lab.y.connect({ address: z, port: 443 })
  ssh.write('SSH-2.0-OpenSSH_9.2\r\n')
  assert.equal((await receiveAll(ssh)).failure, 'ECONNRESET')
  const { rule, detected } = await limpid.nextRecord()
  assert.deepEqual([rule, detected], ['tls-alone', 'ssh'])
})

test('a server that speaks first is waited for no longer than the silence that is allowed', async () => {
  const startedAt = performance.now()
  const client = lab.y.connect({ address: z, port: 2525 })
  client.once('data', () => client.end('QUIT\r\n'))
  await receiveAll(client)
  assert.ok(performance.now() - startedAt >= 300)
  const { detected, reason } = await limpid.nextRecord()
  assert.deepEqual([detected, reason], ['unknown', 'closed'])
})

test('a head that two readers may understand differently is refused', async () => {
  const client = lab.y.connect({ address: z, port: 80 })
  client.write('GET / HTTP/1.1\r\nHost: ok.example\r\nHost: blocked.example\r\n\r\n')
  assert.equal((await receiveAll(client)).failure, 'ECONNRESET')
  assert.equal((await limpid.nextRecord()).reason, 'malformed')
})

test('a hello that is not complete in time is refused, and one that comes in pieces is not', async () => {
  const slow = lab.y.connect({ address: z, port: 80 })
  slow.write('GET / HT')
  assert.equal((await receiveAll(slow)).failure, 'ECONNRESET')
  assert.equal((await limpid.nextRecord()).reason, 'hello-timeout')
  const pieces = lab.y.connect({ address: z, port: 80 })
  pieces.setNoDelay(true)
  for (const piece of ['GE', 'T / HTT', 'P/1.1\r\nHo', 'st: blocked.example\r\n', '\r\n']) {
    pieces.write(piece)
    await sleep(30)
  }
  let text = ''
  pieces.on('data', (chunk) => {
    text += chunk
  })
  await until(() => text.includes('\r\n\r\n'), 'the page')
  assert.match(text, /^HTTP\/1\.1 403 /)
  pieces.end()
})

test('a client that resets while its first bytes are waited for leaves nothing behind', async () => {
  const client = lab.y.connect({ address: z, port: 80 })
  client.on('error', () => {})
  client.write('GET /')
  await sleep(100)
  client.resetAndDestroy()
  assert.equal((await limpid.nextRecord()).reason, 'client-gone')
  assert.equal((await limpid.stats()).flowsOpen, 0)
})
