import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTcpServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../lab/traffic.fixture.ts'
import type { Hooks } from '../../proxy/hooks.ts'
import { connectTo, forwarderConfig, readAll } from '../../proxy/proxy.fixture.ts'
import type { FlowRecord } from '../../proxy/record.ts'
import { createProxy } from '../create-proxy.ts'
import { type ConfigInput, defineConfig } from '../define-config.ts'

type Rules = NonNullable<NonNullable<ConfigInput['policy']>['rules']>

interface Started extends AsyncDisposable {
  readonly records: FlowRecord[]
  readonly counters: () => Readonly<Record<string, number>>
  readonly stats: () => { readonly hookFailures: number; readonly hookTimeouts: number }
  /** Sends `text` and ends; everything that comes back, or the error's code behind it. */
  ask(text: string, options?: { readonly isOpen?: boolean }): Promise<string>
  connect(): Socket
}

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const HANDLE: Rules = [{ name: 'web', then: 'handle', app: 'http' }]
const REFUSE: Rules = [{ name: 'no-ads', hosts: ['.ads.example'], then: 'reject', by: 'forbidden' }, ...HANDLE]

async function start(
  server: Server | ReturnType<typeof createTcpServer>,
  rules = REFUSE,
  hooks?: Hooks,
): Promise<Started> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const listeners = [{ intercept: 'none', listen: '127.0.0.1:50080', to: '127.0.0.1:1' }] as const
  const config = defineConfig({ listeners: [...listeners], policy: { rules }, ...(hooks && { hooks }) })
  const proxy = createProxy({ ...config, listeners: forwarderConfig({ address: '127.0.0.1', port }).listeners })
  const records: FlowRecord[] = []
  proxy.on('flow', (record) => records.push(record))
  const [address] = await proxy.listen()
  const connect = () => connectTo(address!)
  return {
    records,
    counters: () => proxy.stats().apps.http ?? {},
    stats: () => proxy.stats(),
    connect,
    ask: async (text, { isOpen = false } = {}) => {
      const client = connect()
      client.write(text, 'latin1')
      if (!isOpen) client.end()
      let answer = ''
      for await (const chunk of client.setEncoding('latin1').iterator({ destroyOnReturn: false })) answer += chunk
      return answer
    },
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      if ('closeAllConnections' in server) server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A server that tells what it was asked for: method, url and headers in order. */
function echo(answer: RequestListener = (req, res) => void req.resume().once('end', () => res.end(told(req)))): Server {
  return createServer({ requireHostHeader: false }, answer)
}

const told = ({ method, url, rawHeaders }: IncomingMessage): string => `${method} ${url} ${rawHeaders.join('|')}`

const get = (host: string, more = '', path = '/'): string => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`

test('each request of a connection is decided by its own host, and those that go on arrive as they were sent', async () => {
  await using started = await start(echo())
  const answer = await started.ask(
    [
      get(
        'ok.example',
        'X-One: 1\r\naCCept: */*\r\nx-one: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n',
        '/a//b%2e?x',
      ),
      get('www.ads.example'),
      get('Ok.Example.', 'Connection: close\r\n', '/last'),
    ].join(''),
  )
  const [first, second, third] = answer.split(/(?=HTTP\/1\.1 )/)
  assert.match(first!, /^HTTP\/1\.1 200 OK\r\n/)
  assert.doesNotMatch(first!, /via|connection|keep-alive: timeout/i)
  assert.ok(first!.endsWith('GET /a//b%2e?x Host|ok.example|X-One|1|X-One|2|aCCept|*/*'), first)
  assert.match(second!, /^HTTP\/1\.1 403 Forbidden\r\n.*\(rule no-ads\)\.\n$/s)
  assert.match(third!, /\r\nConnection: close\r\n.*GET \/last Host\|Ok\.Example\.\|Connection\|close$/s)
  await until(() => started.records.length === 1, 'the record')
  assert.deepEqual([started.records[0]?.reason, started.records[0]?.rule], ['closed', 'web'])
  assert.deepEqual([started.counters().requests, started.counters().refused], [3, 1])
})

test('a request that would have to go another way is misdirected', async () => {
  const rules: Rules = [{ name: 'other', hosts: ['other.example'], then: 'forward', to: '127.0.0.1:1' }, ...HANDLE]
  await using started = await start(echo(), rules)
  const answer = await started.ask(get('ok.example') + get('other.example') + get('ok.example'))
  assert.match(answer, /^HTTP\/1\.1 200 .*HTTP\/1\.1 421 Misdirected Request\r\n/s)
  assert.equal(answer.split('HTTP/1.1 200').length, 2)
})

test('bodies of any size go both ways as they are, chunked or with their length', async () => {
  const body = randomBytes(8 << 20)
  const server = echo((req, res) => {
    const hash = createHash('sha256')
    req.on('data', (chunk: Buffer) => hash.update(chunk))
    req.once('end', () => {
      res.setHeader('x-hash', hash.digest('hex'))
      res.setHeader('x-trailer', req.trailers['x-sum'] ?? '')
      if (req.url === '/chunked') {
        res.setHeader('trailer', 'x-end')
        res.write(body)
        res.addTrailers({ 'X-End': 'yes' })
        res.end()
      } else res.setHeader('content-length', body.length).end(body)
    })
  })
  await using started = await start(server)
  const hash = createHash('sha256').update(body).digest('hex')
  const client = started.connect()
  client.write(`POST /length HTTP/1.1\r\nHost: a.example\r\nContent-Length: ${body.length}\r\n\r\n`)
  client.write(body)
  client.write(
    'POST /chunked HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n',
  )
  client.write(`${body.length.toString(16)}\r\n`)
  client.write(body)
  client.end('\r\n0\r\nX-Sum: 7\r\n\r\n')
  const answer = await readAll(client)
  const [, one, two] = answer.toString('latin1').split('HTTP/1.1 200 OK\r\n')
  assert.ok(one!.includes(`x-hash: ${hash}\r\n`) && two!.includes(`x-hash: ${hash}\r\n`))
  assert.match(two!, /x-trailer: 7\r\n/)
  assert.equal(one!.slice(one!.indexOf('\r\n\r\n') + 4), body.toString('latin1'))
  assert.match(two!.slice(0, 500), /\r\nTransfer-Encoding: chunked\r\n/)
  assert.match(two!.slice(-100), /\r\n0\r\nX-End: yes\r\n\r\n$/)
})

test('HEAD, 204, 304, an answer that ends with its connection, HTTP/1.0, and a method without a body', async () => {
  const server = echo((req, res) => {
    if (req.url === '/204' || req.url === '/304') res.writeHead(Number(req.url.slice(1)), { etag: 'x' }).end()
    else if (req.url === '/head') res.writeHead(200, { 'content-length': 1_000 }).end()
    else if (req.url === '/ends') {
      res.removeHeader('transfer-encoding')
      res.shouldKeepAlive = false
      res.write('to the end')
      res.end()
    } else res.end(told(req))
  })
  await using started = await start(server)
  const answers = await started.ask(
    `${get('a', '', '/204')}${get('a', '', '/304')}HEAD /head HTTP/1.1\r\nHost: a\r\n\r\nPOST /post HTTP/1.1\r\nHost: a\r\n\r\n${get('a', '', '/ends')}`,
  )
  const [no, not, head, post, ends] = answers.split(/(?=HTTP\/1\.1 )/)
  assert.match(no!, /^HTTP\/1\.1 204 No Content\r\netag: x\r\nDate: [^\r]*\r\n\r\n$/)
  assert.match(not!, /^HTTP\/1\.1 304 Not Modified\r\netag: x\r\nDate: [^\r]*\r\n\r\n$/)
  assert.match(head!, /content-length: 1000\r\n.*\r\n\r\n$/s)
  assert.ok(post!.endsWith('POST /post Host|a'), post)
  assert.doesNotMatch(ends!, /chunked/i)
  assert.match(ends!, /\r\n\r\nto the end$/)
  const old = await started.ask('GET /old HTTP/1.0\r\n\r\n')
  assert.match(old, /^HTTP\/1\.1 200 OK\r\n(?!.*chunked).*GET \/old Host\|127\.0\.0\.1:\d+\|Connection\|close$/s)
})

test('a client that waits for 100 hears it when the upstream says so, and not of a request that is refused', async () => {
  const server = echo()
  server.on('checkContinue', (req: IncomingMessage, res) => {
    res.writeContinue()
    let body = ''
    req.on('data', (chunk) => {
      body += chunk
    })
    req.once('end', () => res.end(body))
  })
  await using started = await start(server)
  const ask = async (host: string): Promise<string> => {
    const client = started.connect()
    client.write(`PUT / HTTP/1.1\r\nHost: ${host}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`)
    let answer = ''
    client.setEncoding('latin1').on('data', (text: string) => {
      if (text.startsWith('HTTP/1.1 100')) client.end('hello')
      else client.end()
      answer += text
    })
    await new Promise((resolve) => client.once('close', resolve))
    return answer
  }
  assert.match(await ask('ok.example'), /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n.*hello$/s)
  assert.match(await ask('x.ads.example'), /^HTTP\/1\.1 403 /)
})

const ODD: readonly [string, string][] = [
  ['two hosts', 'GET / HTTP/1.1\r\nHost: ok.example\r\nHost: www.ads.example\r\n\r\n'],
  ['no host', 'GET / HTTP/1.1\r\n\r\n'],
  [
    'length and chunked',
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ],
  ['two lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde'],
  ['a length with a sign', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd'],
  ['a coding that is not chunked', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\nabcd'],
  ['chunked twice', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n'],
  ['chunked in HTTP/1.0', 'POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['a folded line', 'GET / HTTP/1.1\r\nHost: a\r\n www.ads.example\r\n\r\n'],
  ['a blank before the colon', 'GET / HTTP/1.1\r\nHost : a\r\n\r\n'],
  ['LF alone', 'GET / HTTP/1.1\nHost: a\n\n'],
  ['CR inside', 'GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n'],
  ['NUL', 'GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n'],
  ['a target of another host', 'GET http://ok.example/ HTTP/1.1\r\nHost: www.ads.example\r\n\r\n'],
  ['HTTP/2.0 in a head', 'GET / HTTP/2.0\r\nHost: a\r\n\r\n'],
  ['a chunk size that is none', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n'],
  ['more than 100 fields', `GET / HTTP/1.1\r\nHost: a\r\n${'x: y\r\n'.repeat(100)}\r\n`],
  ['a head that is too long', `GET / HTTP/1.1\r\nHost: a\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`],
]

for (const [what, text] of ODD) {
  test(`${what}: not as the first request, and not as a later one, and nothing behind it`, async () => {
    const asked: string[] = []
    const server = echo((req, res) => {
      asked.push(`${req.url}`)
      req.resume().once('end', () => res.end('ok'))
      req.once('error', () => {})
    })
    await using started = await start(server)
    const behind = get('ok.example', '', '/behind')
    const first = await started.ask(text + behind).catch((error: NodeJS.ErrnoException) => `${error.code}`)
    assert.match(first, /^(?:HTTP\/1\.1 4(?:00|31) |ECONNRESET)/)
    const later = await started
      .ask(get('ok.example', '', '/before') + text + behind)
      .catch((error: NodeJS.ErrnoException) => `${error.code}`)
    assert.match(later, /^(?:HTTP\/1\.1 200 OK.*HTTP\/1\.1 4(?:00|31) .*|.*ECONNRESET)$|^HTTP\/1\.1 200 /s)
    assert.ok(!asked.includes('/behind'), asked.join())
    assert.equal(later.split('HTTP/1.1 200').length <= 2, true, later)
  })
}

test('websocket goes through where server, policy and hook agree; h2c is not offered on', async () => {
  const asked: string[] = []
  const server = echo((req, res) => {
    asked.push(told(req))
    res.end('plain')
  })
  server.on('upgrade', (req: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${req.headers.upgrade}\r\n\r\n`)
    socket.write(head)
    socket.pipe(socket)
  })
  await using started = await start(server, REFUSE, {
    onHttpRequest: ({ url }) => (url === '/no' ? { then: 'reject', status: 451, body: 'no\n' } : undefined),
  })
  const upgrade = (host: string, path = '/', protocol = 'websocket') =>
    get(host, `Connection: Upgrade\r\nUpgrade: ${protocol}\r\nSec-WebSocket-Version: 13\r\n`, path)
  assert.match(
    await started.ask(`${get('ok.example')}${upgrade('ok.example')}frames of mine`),
    /plainHTTP\/1\.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes of mine$/,
  )
  assert.match(await started.ask(upgrade('www.ads.example')), /^HTTP\/1\.1 403 /)
  assert.match(await started.ask(upgrade('ok.example', '/no')), /^HTTP\/1\.1 451 .*\r\n\r\nno\n$/s)
  const h2c = await started.ask(`${upgrade('ok.example', '/h2c', 'h2c')}${get('www.ads.example')}`)
  assert.match(h2c, /^HTTP\/1\.1 200 .*\r\nConnection: close\r\n.*plain$/s)
  assert.equal(asked.at(-1), 'GET /h2c Host|ok.example|Sec-WebSocket-Version|13|Connection|close')
  assert.equal(started.counters().upgrades, 1)
})

test('a hook refuses, changes and fails each request by itself', async () => {
  const seen: string[] = []
  await using started = await start(echo(), HANDLE, {
    hookDeadline: '100ms',
    onHttpRequest: async ({ method, url, host, headers, rule, client }) => {
      await sleep(1)
      seen.push(`${method} ${url} ${host} ${headers['x-a']} ${rule} ${client.address}`)
      if (url === '/no') return { then: 'reject' }
      if (url === '/page') return { then: 'reject', status: 302, body: '', headers: { location: 'http://b.example/' } }
      if (url === '/throws') throw new Error('of the hook')
      if (url === '/hangs') return await new Promise(() => {})
      if (url === '/smuggles') return { then: 'forward', headers: { 'content-length': '5' } }
      if (url === '/breaks') return { then: 'forward', host: 'a b' }
      if (url === '/change') {
        return {
          then: 'forward',
          url: '/changed',
          host: 'b.example',
          headers: { 'X-A': ['1', '2'], New: 'n' },
          remove: ['x-b'],
        }
      }
      return undefined
    },
  })
  const paths = ['/no', '/page', '/throws', '/hangs', '/smuggles', '/breaks', '/ok', '/change']
  const text = paths.map((path) => get('a.example', 'X-a: 0\r\nX-b: 0\r\n', path)).join('')
  const answers = (await started.ask(text)).split(/(?=HTTP\/1\.1 )/)
  assert.deepEqual(
    answers.map((answer) => answer.slice(9, 12)),
    ['403', '302', '503', '503', '503', '503', '200', '200'],
  )
  assert.match(answers[1]!, /location: http:\/\/b\.example\/\r\n/)
  assert.ok(answers[7]!.endsWith('GET /changed Host|b.example|X-A|1|X-A|2|New|n'), answers[7])
  assert.equal(seen[0], 'GET /no a.example 0 web 127.0.0.1')
  assert.deepEqual([started.stats().hookFailures, started.stats().hookTimeouts], [3, 1])
})

test('an end that goes away takes the other with it', async () => {
  let gone = 0
  const server = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('close', () => gone++)
    socket.once('data', (chunk) => {
      if (String(chunk).includes('/half')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf')
      if (String(chunk).includes('/none')) socket.resetAndDestroy()
      if (String(chunk).includes('/odd'))
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab')
    })
  })
  await using started = await start(server)
  await assert.rejects(started.ask(get('a', '', '/half')), { code: 'ECONNRESET' })
  assert.match(await started.ask(get('a', '', '/none')), /^HTTP\/1\.1 502 /)
  assert.match(await started.ask(get('a', '', '/odd')), /^HTTP\/1\.1 502 /)
  const client = started.connect()
  client.write(get('a', '', '/waits'))
  await sleep(50)
  client.resetAndDestroy()
  await until(() => gone === 4, 'the upstream')
  await until(() => started.records.length === 4, 'the records')
})

test('an idle upstream that closes ends its client, and a flood of requests ahead ends its own connection', async () => {
  const server = echo()
  server.keepAliveTimeout = 50
  await using started = await start(server)
  const client = started.connect()
  client.write(get('a'))
  assert.match(String(await readAll(client)), /^HTTP\/1\.1 200 /)
  client.end()
  await assert.rejects(started.ask(get('a').repeat(3_000)), { code: 'ECONNRESET' })
  const answer = await started.ask(get('a').repeat(90))
  assert.equal(answer.split('HTTP/1.1 200').length, 91)
})

test('a change of protocol that nobody asked for is no answer, and nobody waits for one', async () => {
  const server = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () =>
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx'),
    )
  })
  await using started = await start(server)
  const answer = await started.ask('GET / HTTP/1.1\r\nHost: ok.example\r\n\r\n', { isOpen: true })
  assert.match(answer, /^HTTP\/1\.1 502 /)
  await until(() => started.records.length === 1, 'the record')
})
// biome-ignore-end lint/suspicious/noThenProperty: as above
