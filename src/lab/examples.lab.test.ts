import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Endpoint } from '../net/address.ts'
import { DatagramPeer } from './datagram.fixture.ts'
import { LIMPID_PROGRAM, LimpidProcess } from './limpid-process.ts'
import { enterNamespaces } from './namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from './topology.ts'
import { serve, until } from './traffic.fixture.ts'

await enterNamespaces()

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url))
const { y, z } = ADDRESSES[4]
const web = { address: z, port: 80 }
const STARTED_MS = 10_000
let lab: Topology
const tested = new Set<string>()

before(async () => {
  lab = await raiseTopology()
  await rules('install', '--intercept', 'tproxy', '--ports', '80')
})

after(async () => {
  assert.deepEqual(readdirSync(EXAMPLES).toSorted(), [...tested].toSorted(), 'every example is run by a test')
  await rules('remove')
  await lab.close()
})

async function rules(...args: string[]): Promise<void> {
  await lab.x.run(process.execPath, [LIMPID_PROGRAM, 'rules', ...args])
}

/** Runs an example on X while `work` goes on; gives its output. */
async function withExample(
  name: string,
  args: readonly string[],
  work: (output: () => string) => Promise<void>,
): Promise<void> {
  tested.add(name)
  const child = lab.x.spawn(process.execPath, [`${EXAMPLES}${name}`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', (text) => (output += text))
  try {
    await work(() => output)
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}: ${output}`, { cause: error })
  } finally {
    const exited = once(child, 'exit')
    if (child.exitCode === null) {
      child.kill()
      await exited // the next example listens on the same port
    }
  }
}

const listening = (port: number): Promise<void> =>
  until(() => lab.x.inside(() => isListening('tcp', port)), `listener on ${port}`)
const receiving = (port: number): Promise<void> =>
  until(() => lab.x.inside(() => isListening('udp', port)), `UDP socket on ${port}`)

function isListening(protocol: 'tcp' | 'udp', port: number): boolean {
  // local_address is ADDRESS:PORT in hex, state 0A is LISTEN, 07 an unconnected UDP socket (proc_net_tcp, Documentation/networking)
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  const state = protocol === 'tcp' ? '0A' : '07'
  return new RegExp(`:${hex} \\S+ ${state} `).test(readFileSync(`/proc/thread-self/net/${protocol}`, 'latin1'))
}

async function ask(to: Endpoint, request: string): Promise<string> {
  const socket = lab.y.connect(to)
  socket.end(request)
  let answer = ''
  for await (const chunk of socket) answer += chunk
  return answer
}

test('transparent-listener tells who dialled what', async () => {
  await withExample('transparent-listener.mjs', [], async () => {
    await listening(50_080)
    assert.equal(await ask(web, ''), `${y} dialled ${z} port 80\n`)
  })
})

test('interception-loop: the server sees the client, and the client its server', async () => {
  await using server = await serve(lab.z, web, (socket) => socket.pipe(socket))
  await withExample('interception-loop.mjs', [], async (output) => {
    await listening(50_080)
    assert.equal(await ask(web, 'hello'), 'hello')
    await until(() => output() === 'closed 5\n', 'what the example prints')
    assert.equal(server.peers[0]?.address, y)
  })
})

test('plain-forwarder: Y and Z know X, not each other', async () => {
  await using server = await serve(lab.z, web, (socket) => socket.pipe(socket))
  await withExample('plain-forwarder.mjs', [`${z}:80`], async (output) => {
    await listening(8080)
    assert.equal(await ask({ address: ADDRESSES[4].xy, port: 8080 }, 'hello'), 'hello')
    await until(() => output() === `${y}: 5 bytes, closed\n`, 'what the example prints')
    assert.equal(server.peers[0]?.address, ADDRESSES[4].xz)
  })
})

test('http-on-intercepted answers for a site that does not exist', async () => {
  await withExample('http-on-intercepted.mjs', [], async () => {
    await listening(50_080)
    const answer = await ask(web, 'GET /page HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n')
    assert.match(answer, /no any\.example\/page here/)
  })
})

test('limpid.config.ts: a function decides, and keeps what it has seen', async () => {
  tested.add('limpid.config.ts')
  await rules('remove')
  await using _server = await serve(lab.z, web, (socket) => socket.once('data', () => socket.end('page')))
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', `${EXAMPLES}limpid.config.ts`])
  const fetched: string[] = []
  for (const host of ['one.example', 'two.example', 'three.example', 'x.ads.example']) {
    fetched.push(await ask(web, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`).catch((error) => error.code))
  }
  assert.deepEqual(
    fetched.map((text) => text.slice(0, 12)),
    ['page', 'page', 'HTTP/1.1 403', 'ECONNRESET'],
  )
  await until(() => limpid.stderr.includes(`${y} had 0 bytes of x.ads.example: policy`), 'what the example prints')
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await rules('install', '--intercept', 'tproxy', '--ports', '80')
})

test('apps.config.ts: requests are decided one by one, and flows go through code of the program', async () => {
  tested.add('apps.config.ts')
  await rules('remove')
  const http = createServer((request, response) => response.end(`a secret of ${request.url}\n`))
  await using _web = await serve(lab.z, web, (socket) => void http.emit('connection', socket))
  await using _other = await serve(lab.z, { address: z, port: 8000 }, (socket) =>
    socket.once('data', () => socket.end('a secret')),
  )
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', `${EXAMPLES}apps.config.ts`])
  const request = (line: string, host: string) => `${line} HTTP/1.1\r\nHost: ${host}\r\n\r\n`
  const requests = [
    request('GET /old/page', 'a.example'),
    request('GET /', 'x.ads.example'),
    request('DELETE /', 'a.example'),
  ]
  const answers = (await ask(web, requests.join(''))).split(/(?=HTTP\/1\.1 )/)
  assert.deepEqual(
    answers.map((answer) => answer.slice(9, 12)),
    ['200', '403', '405'],
  )
  assert.match(answers[0]!, /a secret of \/new\/page\n$/)
  assert.equal(await ask({ address: z, port: 8000 }, 'what is there?\n'), 'a ******')
  assert.match(await ask({ address: z, port: 37 }, '?'), new RegExp(`^${y}: it is \\d{4}-`))
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await rules('install', '--intercept', 'tproxy', '--ports', '80')
})

test("foreign-listener takes connections to somebody else's address without a rule for the port", async () => {
  await withExample('foreign-listener.mjs', [z, '2121'], async () => {
    await listening(2121)
    assert.equal(await ask({ address: z, port: 2121 }, ''), `this is not ${z}\n`)
  })
})

test('foreign-source: the server sees an address that is not ours', async () => {
  const listener = lab.z.listen(web)
  let peer = ''
  const http = createServer((request, response) => {
    peer = request.socket.remoteAddress!
    response.end('found')
  })
  listener.on('connection', (socket) => http.emit('connection', socket))
  await withExample('foreign-source.mjs', ['10.0.3.77', z, '80'], async (output) => {
    await until(() => output().endsWith('found'), 'answer')
    assert.equal(peer, '10.0.3.77')
  })
  listener.close()
})

test('foreign-datagram: the server sees an address and a port that are not ours (R18)', async () => {
  await using server = await DatagramPeer.open(lab.z, { address: z, port: 53 })
  await withExample('foreign-datagram.mjs', ['1.2.3.4', '5300', z, '53'], async () => {
    const heard = await server.next(STARTED_MS)
    assert.deepEqual(
      [`${heard?.bytes}`, heard?.from],
      ['hello from somebody else', { address: '1.2.3.4', port: 5_300 }],
    )
  })
})

test('datagram-loop takes what was sent to anybody, and answers from the address asked (R4)', async () => {
  await rules('remove')
  await rules('install', '--intercept', 'mark', '--protocol', 'udp', '--ports', '5301')
  const asked = { address: z, port: 5_301 }
  await withExample('datagram-loop.mjs', [], async (output) => {
    await receiving(5_301)
    await using client = await DatagramPeer.open(lab.y, { address: y, port: 0 })
    for (const text of ['hello', 'again']) {
      client.send(text, asked)
      const answer = await client.next()
      assert.deepEqual([`${answer?.bytes}`, answer?.from], [text, asked])
    }
    const line = `${y} sent 5 bytes to ${z} port 5301\n`
    await until(() => output() === line + line, 'what the example prints')
  })
})

test('datagram-proxy: the server sees the client, and the client its server', async () => {
  await rules('remove')
  await rules('install', '--intercept', 'tproxy', '--protocol', 'udp', '--source', 'client')
  const asked = { address: z, port: 5_300 }
  await using server = await DatagramPeer.echo(lab.z, asked)
  await withExample('datagram-proxy.mjs', [], async (output) => {
    await receiving(50_080)
    await using client = await DatagramPeer.open(lab.y, { address: y, port: 0 })
    for (const text of ['one', 'two', 'three']) {
      client.send(text, asked)
      const answer = await client.next()
      assert.deepEqual([`${answer?.bytes}`, answer?.from], [text, asked])
    }
    assert.deepEqual([...new Set(server.heard.map(({ from }) => from.address))], [y])
    assert.equal(output(), '')
  })
})
