import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve, sleep } from '../lab/traffic.fixture.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

const { y, z, xz } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-via-'))
let lab: Topology
let limpid: LimpidProcess
let behind: LabServer
const servers: LabServer[] = []

const PORT = {
  ...{ haproxy1: 8101, haproxy2: 8102, nginx1: 8103, nginx2: 8104 },
  ...{ socks: 8105, socksUser: 8106, socksWrong: 8107, socksNobody: 8108, socksName: 8109 },
  ...{ connect: 8110, connectWrong: 8111, connectNever: 8112, marked: 8113 },
} as const
const SOCKS = `${z}:1080`
const SOCKS_WITH_USER = `${z}:1081`
const HTTP_PROXY = `${z}:3128`

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const VIA = { then: 'via' }
const CONFIG = {
  listeners: [{ name: 'all', source: 'proxy', protocols: ['tcp', 'udp'] }],
  policy: {
    rules: [
      { name: 'v1', ports: [PORT.haproxy1, PORT.nginx1], ...VIA, via: { proxyProtocol: 'v1' } },
      { name: 'v2', ports: [PORT.haproxy2, PORT.nginx2], ...VIA, via: { proxyProtocol: 'v2' } },
      { ports: [PORT.socks, PORT.socksNobody], ...VIA, via: { socks5: SOCKS } },
      { ports: PORT.socksUser, ...VIA, via: { socks5: SOCKS_WITH_USER, user: 'me', password: 'right' } },
      { ports: PORT.socksWrong, ...VIA, via: { socks5: SOCKS_WITH_USER, user: 'me', password: 'wrong' } },
      { ports: PORT.socksName, detected: 'http1', ...VIA, via: { socks5: SOCKS, names: true } },
      { ports: [PORT.connect, PORT.connectNever], ...VIA, via: { connect: HTTP_PROXY, user: 'me', password: 'right' } },
      { ports: PORT.connectWrong, ...VIA, via: { connect: HTTP_PROXY, user: 'me', password: 'wrong' } },
      { ports: PORT.marked, then: 'forward', mark: '0x10', dscp: 'ef' },
    ],
  },
}
// biome-ignore-end lint/suspicious/noThenProperty: as above

const HAPROXY = `
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend told
  bind ${z}:${PORT.haproxy1},${z}:${PORT.haproxy2} accept-proxy
  bind [${ADDRESSES[6].z}]:${PORT.haproxy1},[${ADDRESSES[6].z}]:${PORT.haproxy2} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] for %[dst] %[dst_port]"
`
const NGINX = `
user root; daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/nginx.log;
events {}
http {
  access_log off; default_type text/plain; client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server {
    listen ${z}:${PORT.nginx1} proxy_protocol; listen [${ADDRESSES[6].z}]:${PORT.nginx1} proxy_protocol;
    listen ${z}:${PORT.nginx2} proxy_protocol; listen [${ADDRESSES[6].z}]:${PORT.nginx2} proxy_protocol;
    return 200 "$proxy_protocol_addr for $proxy_protocol_server_addr $proxy_protocol_server_port";
  }
}
`
const TINYPROXY = `
Port 3128
Listen ${z}
Allow ${ADDRESSES[4].xz}
BasicAuth me right
ConnectPort ${PORT.connect}
ConnectPort ${PORT.connectWrong}
`

before(async () => {
  lab = await raiseTopology()
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    chmodSync(join(folder, name), 0o644)
    return join(folder, name)
  }
  chmodSync(folder, 0o755)
  const start = (program: string, args: readonly string[]): void => {
    if (isInstalled(program)) lab.z.spawn(program, args, { stdio: 'ignore' })
  }
  start('haproxy', ['-db', '-f', write('haproxy.cfg', HAPROXY)])
  start('nginx', ['-c', write('nginx.conf', NGINX)])
  start('tinyproxy', ['-d', '-c', write('tinyproxy.conf', TINYPROXY)])
  start('microsocks', ['-i', z, '-p', '1080'])
  start('microsocks', ['-i', z, '-p', '1081', '-u', 'me', '-P', 'right'])
  behind = await listen({ address: z, port: PORT.socks })
  for (const port of [PORT.socksUser, PORT.connect, PORT.connectNever, PORT.marked]) await listen({ address: z, port })
  await listen({ address: ADDRESSES[6].z, port: PORT.marked })
  await listen({ address: '127.0.0.1', port: PORT.socksName })
  const file = write('limpid.yaml', JSON.stringify(CONFIG))
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

/** On Z: it says whom it saw. */
async function listen(endpoint: Endpoint): Promise<LabServer> {
  const server = await serve(lab.z, endpoint, (socket) => {
    socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nseen ${socket.remoteAddress}`))
  })
  servers.push(server)
  return server
}

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

beforeEach(async () => {
  await sleep(20)
  limpid.skipRecords()
})

const needs = (program: string) => ({ skip: isInstalled(program) ? false : `${program} is not installed` })

/** What comes back for a request of Y's once its server is up, or the errno of the reset; and the flow's record. */
async function ask(endpoint: Endpoint, host = 'www.example'): Promise<{ answer: string; record: FlowRecord }> {
  for (let tries = 0; ; tries++) {
    const client = lab.y.connect(endpoint)
    let text = ''
    client.on('data', (chunk) => {
      text += chunk
    })
    client.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    const { failure } = await receiveAll(client)
    client.destroy()
    const record = await limpid.nextRecord()
    const answer = failure ?? text.slice(text.indexOf('\r\n\r\n') + 4)
    if (record.reason !== 'dial-refused' || tries > 100) return { answer, record }
    await sleep(50)
  }
}

for (const [program, ports] of [
  ['haproxy', [PORT.haproxy1, PORT.haproxy2]],
  ['nginx', [PORT.nginx1, PORT.nginx2]],
] as const) {
  for (const [index, port] of ports.entries()) {
    for (const family of [4, 6] as const) {
      const { y, z } = ADDRESSES[family]
      test(`${program} sees the client by the PROXY protocol v${index + 1}, IPv${family}`, needs(program), async () => {
        const { answer, record } = await ask({ address: z, port })
        assert.equal(answer, `${y} for ${z} ${port}`)
        assert.deepEqual([record.rule, record.reason, record.source], [`v${index + 1}`, 'closed', 'proxy'])
      })
    }
  }
}

test('SOCKS5, without and with a password', needs('microsocks'), async () => {
  const open = await ask({ address: z, port: PORT.socks })
  assert.equal(open.answer, `seen ${z}`)
  assert.deepEqual([open.record.reason, formatEndpoint(open.record.upstream!)], ['closed', SOCKS])
  assert.equal(open.record.originalDst.port, PORT.socks)
  assert.equal((await ask({ address: z, port: PORT.socksUser })).answer, `seen ${z}`)
  const { answer, record } = await ask({ address: z, port: PORT.socksWrong })
  assert.equal(answer, 'ECONNRESET')
  assert.deepEqual([record.reason, record.error], ['via-refused', `socks5 ${SOCKS_WITH_USER}: user and password (2)`])
})

test('SOCKS5 towards a server that nobody is', needs('microsocks'), async () => {
  const { answer, record } = await ask({ address: z, port: PORT.socksNobody })
  assert.equal(answer, 'ECONNRESET')
  assert.deepEqual([record.reason, record.error], ['via-refused', `socks5 ${SOCKS}: connection refused (5)`])
})

test('SOCKS5 by the name that the client asks for', needs('microsocks'), async () => {
  // nobody listens there by its address; the proxy's own resolver knows this name
  const { answer } = await ask({ address: z, port: PORT.socksName }, `localhost:${PORT.socksName}`)
  assert.equal(answer, 'seen 127.0.0.1')
})

test('HTTP CONNECT, and what the proxy does not allow', needs('tinyproxy'), async () => {
  const { answer, record } = await ask({ address: z, port: PORT.connect })
  assert.deepEqual([answer, record.reason], [`seen ${z}`, 'closed'])
  const never = await ask({ address: z, port: PORT.connectNever })
  assert.deepEqual([never.answer, never.record.reason], ['ECONNRESET', 'via-refused'])
  assert.match(never.record.error ?? '', /^connect 10\.0\.4\.2:3128: 403 /)
  const wrong = await ask({ address: z, port: PORT.connectWrong })
  assert.match(wrong.record.error ?? '', /^connect 10\.0\.4\.2:3128: 40[17] /)
})

test('UDP to what is to go via a proxy is turned away, and does not go another way', async () => {
  const socket = lab.y.datagramSocket({ address: y, port: 0 })
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve))
  socket.connect(PORT.socks, z)
  await once(socket, 'connect')
  const sending = setInterval(() => socket.send('x'), 50)
  assert.equal((await failed).code, 'ECONNREFUSED')
  clearInterval(sending)
  socket.close()
  assert.ok(((await limpid.stats()).datagramsDropped.policy ?? 0) > 0)
})

for (const family of [4, 6] as const) {
  test(`mark and DSCP are those of the packets to the upstream, IPv${family}`, async () => {
    const ip = family === 4 ? 'ip' : 'ip6'
    const count = (hook: string, match: string): string =>
      [
        `add table ${ip} counted`,
        `add chain ${ip} counted seen { type filter hook ${hook} priority 0; }`,
        `add rule ${ip} counted seen tcp dport ${PORT.marked} ${match} counter`,
        `add rule ${ip} counted seen tcp dport ${PORT.marked} counter`,
      ].join('\n')
    await lab.z.run('nft', ['-f', '-'], { input: count('input', `${ip} dscp ef`) })
    await lab.x.run('nft', ['-f', '-'], { input: count('output', 'meta mark & 0x10 == 0x10') })
    const { answer } = await ask({ address: ADDRESSES[family].z, port: PORT.marked })
    assert.equal(answer, `seen ${family === 4 ? xz : ADDRESSES[6].xz}`)
    for (const host of [lab.z, lab.x]) {
      const text = await host.run('nft', ['list', 'table', ip, 'counted'])
      const [matched, all] = [...text.matchAll(/packets (\d+)/g)].map(([, packets]) => Number(packets))
      assert.ok(matched! > 3 && matched === all, text)
    }
  })
}

test('what stands behind the proxies was reached by them alone', needs('microsocks'), () => {
  assert.ok(behind.peers.length > 0 && behind.peers.every(({ address }) => address === z))
})
