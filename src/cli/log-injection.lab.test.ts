import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { crypto, sealed } from '../inspect/quic.fixture.ts'
import { helloMessage, inRecords, protocols, serverName } from '../inspect/tls-client-hello.fixture.ts'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LIMPID_PROGRAM } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { PATIENCE_MS, receiveAll, serve, until } from '../lab/traffic.fixture.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { run } from '../sys/program.ts'

await enterNamespaces()

/** Clears a terminal, sets its title, and begins lines that look like ours; C1, the same in one byte; text that runs backwards. */
const EVIL = '\x1b[2J\x1b]0;owned\x07\r\n#1 limpid: ready\n\x9b31m\x85\u2028\u202egnp'
const LATIN1 = EVIL.replaceAll(/[^\0-\xff]/g, '')
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not come
const UNSAFE = /[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/
const { y, z } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-injection-'))
const list = join(folder, 'list.txt')
const config = join(folder, 'limpid.config.mjs')
const servers: AsyncDisposable[] = []
let lab: Topology

before(async () => {
  lab = await raiseTopology()
  writeFileSync(list, 'blocked.example\n', { mode: 0o644 })
  // the hook throws what the client has chosen, unfiltered: flow.alpn is as it was sent
  writeFileSync(
    config,
    `import { defineConfig } from 'limpid'

export default defineConfig({
  listeners: [
    { name: 'names', protocols: ['udp'], ports: 53, source: 'client', dns: {} },
    { name: 'all', protocols: ['tcp', 'udp'], source: 'client', timeouts: { session: '300ms', query: '200ms' } },
  ],
  policy: {
    lists: { list: ${JSON.stringify(list)} },
    peek: { silence: '50ms', hello: '300ms' },
    rules: [{ name: 'listed', lists: ['list'], then: 'reject' }],
  },
  hooks: { onFlow: (flow) => { if (flow.alpn.length > 0) throw new Error(flow.alpn.join()) } },
})
`,
    { mode: 0o644 },
  )
  for (const port of [80, 443]) {
    servers.push(await serve(lab.z, { address: z, port }, (socket) => void socket.once('data', () => socket.end())))
  }
  const names = await DatagramPeer.open(lab.z, { address: z, port: 53 })
  names.socket.on('message', (query, { address, port }) => names.socket.send(answered(query), port, address))
  servers.push(names)
})

after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** The query with an A record of Z for its name. */
function answered(query: Buffer): Buffer {
  const head = Buffer.from(query)
  head.writeUInt16BE(0x8180, 2)
  head.writeUInt16BE(1, 6)
  const address = z.split('.').map(Number)
  return Buffer.concat([head, Uint8Array.of(0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address)])
}

function question(label: string): Buffer {
  const bytes = Buffer.from(label, 'latin1').subarray(0, 63)
  const name = [bytes.length, ...bytes, 7, ...Buffer.from('example'), 0]
  return Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...name, 0, 1, 0, 1])
}

function http(...lines: string[]): Buffer {
  return Buffer.from([...lines, '', ''].join('\r\n'), 'latin1')
}

const HELLO = helloMessage({ extensions: [serverName(LATIN1)] })
/** By port: what a client says first. */
const SAID: readonly (readonly [number, Uint8Array])[] = [
  [443, inRecords(HELLO)],
  [443, inRecords(helloMessage({ extensions: [serverName('ok.example'), protocols(LATIN1)] }))],
  [80, http('GET / HTTP/1.1', `Host: ${LATIN1}`)],
  [80, http('GET / HTTP/1.1', 'Host: ok.example', `User-Agent: ${LATIN1.replaceAll(/[\r\n]/g, '')}`)],
  [80, http(`GET /${LATIN1} HTTP/1.1`, 'Host: ok.example')],
  [80, http(`${LATIN1} / HTTP/1.1`, 'Host: ok.example')],
  [80, Buffer.from(`SSH-2.0-${LATIN1}\r\n`, 'latin1')],
  [80, Buffer.from(LATIN1, 'latin1')],
  [80, Uint8Array.of(5, 1, 0)],
]

for (const json of [false, true]) {
  test(`what clients choose stays within its line${json ? ', --json' : ''}: flow lines, notes, stats`, async () => {
    const args = ['run', '-c', config, ...(json ? ['--json'] : [])]
    const child = lab.x.spawn(process.execPath, [LIMPID_PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let [stdout, stderr] = ['', '']
    child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const lines = () => stdout.split('\n').slice(0, -1)
    await until(() => /\bready\b/.test(stderr), 'start')

    const client = lab.y.datagramSocket({ address: y, port: 0 })
    client.on('error', () => {}).send(question(LATIN1), 53, z)
    await once(client, 'message')
    client.send(sealed(crypto(HELLO), { dcid: Buffer.from('0011223344556677', 'hex') }), 443, z)
    client.send(LATIN1, 80, z)
    for (const [port, bytes] of SAID) {
      const socket = lab.y.connect({ address: z, port })
      socket.end(bytes)
      await receiveAll(socket)
    }
    await until(() => lines().length >= SAID.length + 2, 'flow lines')
    client.close()

    writeFileSync(list, `blocked.example\n${EVIL.replaceAll(/[\r\n]/g, '')}\n`)
    const said = [await limpid('stats'), await limpid('stats', '--json'), await limpid('reload')]
    writeFileSync(list, 'blocked.example\n')
    child.kill('SIGUSR2')
    await until(() => stderr.includes('"dials":'), 'counters')
    child.kill('SIGTERM')
    assert.deepEqual(await once(child, 'close'), [0, null], stderr)

    for (const text of [stdout, stderr, ...said]) assert.doesNotMatch(text, UNSAFE)
    for (const line of lines()) {
      if (json) assert.ok((JSON.parse(line) as FlowRecord).id > 0)
      else assert.match(line, /^#\d+ +(?:names|all) /)
    }
    for (const line of stderr.split('\n').slice(0, -1)) assert.match(line, /^limpid: /)
    assert.match(stderr, /^limpid: (?:worker 1: )?hook onFlow failed: Error: \\u001b\[2J/m, 'told, and escaped')
    assert.match(stdout, json ? /"name":"\\\\027\\\\0912j/ : /#/, 'a name of DNS is escaped as RFC 1035 has it')
  })
}

async function limpid(...args: string[]): Promise<string> {
  const { stdout, stderr } = await lab.x.inside(() =>
    run(process.execPath, [LIMPID_PROGRAM, ...args], { timeoutMs: PATIENCE_MS }),
  )
  return stdout + stderr
}

test('errors and explain say what was asked for on one line', async () => {
  const asked = EVIL.replaceAll('\0', '')
  const lists = join(folder, 'lists.txt')
  writeFileSync(lists, `${EVIL.replaceAll(/[\r\n]/g, '')}\n`, { mode: 0o644 })
  const file = join(folder, 'bad.yaml')
  writeFileSync(file, JSON.stringify({ policy: { lists: { one: lists }, rules: [] }, [asked]: asked }), { mode: 0o644 })
  for (const args of [
    ['explain', y, `${z}:443`, '--host', asked, '-c', config],
    ['explain', asked, z, '-c', config],
    ['check', '-c', file],
    ['check', '-c', asked],
    ['run', '--intercept', 'tproxy', '--ports', asked],
    [asked],
    ['stats', `--${asked}`],
  ]) {
    const text = await limpid(...args)
    assert.doesNotMatch(text, UNSAFE, JSON.stringify(args))
    for (const line of text.split('\n').slice(0, -1)) assert.match(line, /^LIMPID_[A-Z]+: /, JSON.stringify(args))
    assert.notEqual(text, '')
  }
  const explained = await limpid('explain', y, `${z}:443`, '--host', 'ok.example', '-c', config)
  assert.match(explained, /^decided {2}/m)
})
