import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, serve } from '../lab/traffic.fixture.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

const { y, z } = ADDRESSES[4]
const BODY_BYTES = 8 << 20
const folder = mkdtempSync(join(tmpdir(), 'limpid-apps-'))
const curl = { skip: isInstalled('curl') ? false : 'curl is not installed' }
const servers: LabServer[] = []
let lab: Topology
let limpid: LimpidProcess // undefined where before() failed

/** As somebody would write it (examples/apps.config.ts is one in TypeScript): an app that shouts, one that answers itself, and a hook for requests. */
const PROGRAM = `import { Transform } from 'node:stream'
import { defineConfig, transformApp } from 'limpid'

const shout = () => new Transform({ transform: (chunk, _encoding, done) => done(null, String(chunk).toUpperCase()) })

class Greeter {
  greeted = 0
  async serve(client, flow) {
    for await (const line of client.setEncoding('utf8')) {
      client.end(\`hello \${flow.clientAddr.address}, number \${++this.greeted}, you said \${line.trim()} to \${flow.originalDst.port}\\n\`)
    }
  }
}

export default defineConfig({
  listeners: [{ name: 'all', ports: '80-83', source: 'client', family: 4 }],
  policy: {
    rules: [
      { name: 'no-ads', hosts: ['.ads.example'], then: 'reject', by: 'forbidden' },
      { name: 'shout', ports: [81], then: 'handle', app: 'shout', to: '${z}:80' },
      { name: 'greet', ports: [82], then: 'handle', app: 'greeter' },
      { name: 'broken', ports: [83], then: 'handle', app: 'broken', to: '${z}:80' },
      { name: 'web', detected: ['http1'], then: 'handle', app: 'http' },
    ],
  },
  apps: {
    shout: transformApp({ upstreamToClient: shout }),
    greeter: new Greeter(),
    broken: transformApp({ clientToUpstream: () => new Transform({ transform: () => { throw new Error('broken') } }) }),
  },
  hooks: {
    async onHttpRequest({ url, headers, method }) {
      if (url.startsWith('/private')) return { then: 'reject', status: 451, body: 'not here\\n' }
      if (method === 'GET' && headers['x-seen'] === undefined) return { then: 'forward', headers: { 'X-Seen': 'yes' } }
      return undefined
    },
  },
})
`

before(async () => {
  lab = await raiseTopology()
  const http = createServer((req, res) => {
    if (req.method === 'POST') {
      res.setHeader('content-length', req.headers['content-length'] ?? 0)
      req.pipe(res)
    } else res.end(`${req.socket.remoteAddress} ${req.headers.host} ${req.url} seen ${req.headers['x-seen']}\n`)
  })
  http.on('upgrade', (_req: IncomingMessage, socket: Socket) => {
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes')
  })
  servers.push(await serve(lab.z, { address: z, port: 80 }, (socket) => void http.emit('connection', socket)))
  const file = join(folder, 'limpid.config.mjs')
  writeFileSync(file, PROGRAM, { mode: 0o644 })
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file, '--workers', '2'])
})

after(async () => {
  const exitCode = await limpid?.stop()
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
  assert.equal(exitCode, 0, limpid?.stderr)
})

/** What it prints, and its exit code where that is not 0. */
async function runCurl(...args: string[]): Promise<string> {
  const child = lab.y.spawn('curl', ['-s', '--max-time', '20', ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return code === 0 ? text : `${text}exit ${code}`
}

test('each request of a kept connection is decided by rules and by the hook', curl, async () => {
  const one = (host: string, path = '/') => [
    ...['-H', `Host: ${host}`, '-w', '%{http_code} %{num_connects}\n', `http://${z}${path}`],
  ]
  const next = '--next'
  const asked = [
    ...one('ok.example'),
    ...[next, '-s', ...one('www.ads.example')],
    ...[next, '-s', ...one('ok.example', '/private/x')],
    ...[next, '-s', ...one('ok.example', '/again')],
  ]
  assert.deepEqual((await runCurl(...asked)).split('\n'), [
    `${y} ok.example / seen yes`,
    '200 1',
    '403 Forbidden: the policy of this network does not allow it (rule no-ads).',
    '403 0',
    'not here',
    '451 0',
    `${y} ok.example /again seen yes`,
    '200 0',
    '',
  ])
  await limpid.recorded(1)
  const [{ reason, rule, source, host }] = limpid.records as [(typeof limpid.records)[number]]
  assert.deepEqual([reason, rule, source, host], ['closed', 'web', 'client', 'ok.example'])
  const { http } = (await limpid.stats()).apps
  assert.deepEqual([http?.requests, http?.refused, http?.refusedByHook], [4, 1, 1])
})

test('a large body goes both ways as it is, and websocket goes through', curl, async () => {
  const [sent, got] = [join(folder, 'sent'), join(folder, 'got')]
  const body = randomBytes(BODY_BYTES)
  writeFileSync(sent, body)
  assert.equal(await runCurl('--data-binary', `@${sent}`, '-o', got, '-w', '%{http_code}', `http://${z}/`), '200')
  const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
  assert.equal(hash(readFileSync(got)), hash(body))
  const upgrade = ['-H', 'Connection: Upgrade', '-H', 'Upgrade: websocket', '-i', '-N', `http://${z}/`]
  assert.match(await runCurl('--http1.1', ...upgrade), /^HTTP\/1\.1 101 Switching Protocols\r\n.*\r\n\r\nframes/s)
})

test(
  "a developer's apps: a transform with the rule's destination, one that answers itself, and one that throws",
  curl,
  async () => {
    const told = limpid.records.length
    assert.equal(await runCurl(`http://${z}:81/loud`), `${y} ${z}:81 /LOUD SEEN UNDEFINED\n`.toUpperCase().trimStart())
    assert.match(
      await runCurl('--http0.9', '-0', `http://${z}:82/hi`),
      new RegExp(`^hello ${y}, number \\d, you said GET /hi`),
    )
    assert.equal(await runCurl(`http://${z}:83/`), 'exit 56')
    assert.equal(await runCurl(`http://${z}/`), `${y} ${z} / seen yes\n`, 'the workers live')
    await limpid.recorded(told + 4)
    const reasons = limpid.records.slice(told).map(({ rule, reason, error }) => `${rule} ${reason} ${error}`)
    assert.ok(reasons.includes('shout closed undefined'), reasons.join())
    assert.ok(reasons.includes('greet closed undefined'), reasons.join())
    assert.ok(reasons.includes('broken app-failed Error: broken'), reasons.join())
  },
)
