import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { dig } from '../apps/dns/dig.fixture.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { patternHash, serve, sleep } from '../lab/traffic.fixture.ts'
import { formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { ADDRESS_OF, ClientsLab, HOSTS, type Said, without } from './clients.fixture.ts'
import { PORTS, REPOSITORY_FILE, SSH_USER } from './clients-servers.fixture.ts'

await enterNamespaces()

const RELAY_PORT = 4433
const [PIECE_BYTES, PIECE_PAUSE_MS] = [20, 2]
let lab: ClientsLab

before(async () => {
  if (without('openssl') === false) lab = await ClientsLab.raise()
})

after(async () => {
  await lab?.close()
})

/** A program as people start it. */
interface Client {
  readonly name: string
  readonly programs: readonly string[]
  /** As a record tells it. */
  readonly detected: FlowRecord['detected']
  readonly port: number
  /** Where another protocol is spoken, as a rule says, and that rule. */
  readonly misplaced: { readonly port: number; readonly rule: string }
  /** What the program prints. */
  readonly expected: RegExp
  ask(host: string, port: number): Promise<Said>
}

const notTls = { port: PORTS.tls, rule: 'tls-alone' }
const notHttp = { port: PORTS.http, rule: 'http-alone' }

function curl(
  name: string,
  scheme: string,
  client: Pick<Client, 'detected' | 'port' | 'misplaced' | 'expected'>,
  ...flags: string[]
): Client {
  const ask = (host: string, port: number) =>
    lab.run('curl', ['-sk', '-m', '10', ...flags, `${scheme}://${host}:${port}/`])
  return { name: `curl, ${name}`, programs: ['curl'], ...client, ask }
}

const tls = { detected: 'tls', port: PORTS.tls, misplaced: notHttp } as const

const CLIENTS: readonly Client[] = [
  curl('HTTP/1.1', 'http', { detected: 'http1', port: PORTS.http, misplaced: notTls, expected: /^HTTP\/1.1$/ }),
  curl(
    'HTTP/2 with prior knowledge',
    'http',
    { detected: 'http2', port: PORTS.http2, misplaced: notHttp, expected: /^HTTP\/2.0$/ },
    '--http2-prior-knowledge',
  ),
  curl('TLS 1.2', 'https', { ...tls, expected: /^HTTP\/1.1 over TLSv1.2$/ }, '--http1.1', '--tls-max', '1.2'),
  curl('TLS 1.3', 'https', { ...tls, expected: /^HTTP\/1.1 over TLSv1.3$/ }, '--http1.1', '--tlsv1.3'),
  curl('HTTP/2 over TLS', 'https', { ...tls, expected: /^HTTP\/2.0 over TLSv1.3$/ }, '--http2'),
  { name: 'openssl s_client, its hello in two records', programs: [], ...tls, expected: /TLSv1.3$/, ask: askInRecords },
  {
    name: 'openssl s_client, its hello in many segments',
    programs: [],
    ...tls,
    expected: /TLSv1.3$/,
    ask: askInSegments,
  },
  {
    name: 'ssh',
    programs: ['ssh', 'sshd'],
    detected: 'ssh',
    port: PORTS.ssh,
    misplaced: notTls,
    expected: /^over ssh$/m,
    ask: bySsh,
  },
  {
    name: 'git clone, http',
    programs: ['git'],
    detected: 'http1',
    port: PORTS.http,
    misplaced: notTls,
    expected: /^whole$/,
    ask: (host, port) => clone(`http://${host}:${port}/repository`),
  },
  {
    name: 'git clone, git',
    programs: ['git'],
    detected: 'unknown',
    port: PORTS.git,
    misplaced: notTls,
    expected: /^whole$/,
    ask: (host, port) => clone(`git://${host}:${port}/repository`),
  },
]

for (const client of CLIENTS) {
  describe(client.name, { skip: without('openssl', ...client.programs) }, () => {
    const { detected, port, misplaced, expected } = client
    const hasName = detected === 'tls' || detected === 'http1' || detected === 'http2'

    test('is served where no rule says otherwise', async () => {
      const { result, record } = await lab.observe(HOSTS.allowed, port, () => client.ask(HOSTS.allowed, port))
      assert.match(result ?? 'refused', expected)
      const { host, rule, refused } = record
      assert.deepEqual(
        { detected: record.detected, host, rule, refused },
        { detected, host: hasName ? HOSTS.allowed : undefined, rule: undefined, refused: false },
      )
    })

    test(hasName ? 'is refused by host' : 'is refused by host, which it has asked for by DNS', {
      skip: hasName ? false : without('dig'),
    }, async () => {
      const host = hasName ? HOSTS.blocked : HOSTS.namelessBlocked
      if (!hasName) await dig(lab.topology.y, '@ok.example', host)
      await refused(client, host, port, 'blocked')
    })

    test('is refused by client', () => refused(client, HOSTS.byGuest, port, 'no-guests'))
    test('is refused by port', () => refused(client, HOSTS.allowed, PORTS.closed, 'closed-port'))
    test('is refused by protocol', () => refused(client, HOSTS.allowed, misplaced.port, misplaced.rule))
  })
}

async function refused(client: Client, host: string, port: number, wanted: string): Promise<void> {
  const { result, record } = await lab.observe(host, port, () => client.ask(host, port))
  assert.equal(result, undefined, 'the program says that it failed')
  const { rule, reason, bytesClientToUpstream, upstream } = record
  assert.deepEqual(
    { rule, reason, bytesClientToUpstream },
    { rule: wanted, reason: 'policy', bytesClientToUpstream: 0 },
  )
  assert.equal(upstream, undefined)
}

const GET = 'GET / HTTP/1.1\r\nHost: z\r\nConnection: close\r\n\r\n'

/** Many protocols make the hello longer than one record may be. */
async function askInRecords(host: string, port: number): Promise<Said> {
  const protocols = [...Array.from({ length: 60 }, (_, i) => `protocol-${i}`), 'http/1.1'].join(',')
  return await sClient(`${host}:${port}`, host, '-max_send_frag', '512', '-alpn', protocols)
}

async function sClient(to: string, name: string, ...flags: string[]): Promise<Said> {
  const said = await lab.run('openssl', ['s_client', '-connect', to, '-servername', name, '-quiet', ...flags], GET)
  return said === '' ? undefined : said
}

/** A relay on the client's own host sends pieces on, one by one. */
async function askInSegments(host: string, port: number): Promise<Said> {
  const { y } = lab.topology
  const at = { address: '127.0.0.1', port: RELAY_PORT }
  await using _relay = await serve(y, at, (socket) => inPieces(socket, y.connect({ address: ADDRESS_OF[host]!, port })))
  return await sClient(formatEndpoint(at), host)
}

function inPieces(from: Socket, to: Socket): void {
  from.on('error', () => {}).once('close', () => to.destroy())
  to.once('error', () => from.resetAndDestroy())
    .setNoDelay(true)
    .pipe(from)
  from.on('data', async (chunk: Buffer) => {
    from.pause()
    for (let at = 0; at < chunk.length && !to.destroyed; at += PIECE_BYTES) {
      to.write(chunk.subarray(at, at + PIECE_BYTES))
      await sleep(PIECE_PAUSE_MS)
    }
    from.resume()
  })
}

async function bySsh(host: string, port: number): Promise<Said> {
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'ConnectTimeout=10']
  const key = ['-F', 'none', '-i', join(lab.folder, 'user-key'), ...options.flatMap((option) => ['-o', option])]
  return await lab.run('ssh', [...key, '-p', `${port}`, `${SSH_USER}@${host}`, 'echo over ssh'])
}

/** `whole`: what came is what was committed. */
async function clone(url: string): Promise<Said> {
  const to = mkdtempSync(join(lab.folder, 'clone-'))
  if ((await lab.run('git', ['clone', '-q', url, to])) === undefined) return undefined
  const hash = createHash('sha256')
    .update(readFileSync(join(to, 'file')))
    .digest('hex')
  return hash === patternHash(...REPOSITORY_FILE) ? 'whole' : 'changed'
}

describe('dig', { skip: without('openssl', 'dig') }, () => {
  const ask = (port: number, name: string, ...flags: string[]) =>
    dig(lab.topology.y, '+tries=1', '+time=2', '-p', `${port}`, ...flags, name)

  for (const protocol of ['+notcp', '+tcp']) {
    test(`${protocol}: is answered where no rule says otherwise`, async () => {
      for (const port of [PORTS.names, PORTS.relayedNames]) {
        const { status, data } = await ask(port, 'a.example', protocol, '@ok.example')
        assert.deepEqual([status, data.length], ['NOERROR', 1])
      }
    })

    test(`${protocol}: is refused by name`, async () => {
      const { status } = await ask(PORTS.names, 'www.refused.example', protocol, '@ok.example')
      assert.equal(status, 'REFUSED')
    })

    test(`${protocol}: is refused by client and by port`, async () => {
      const before = lab.namesHeard
      assert.equal((await ask(PORTS.relayedNames, 'a.example', protocol, '@guest.example')).status, undefined)
      assert.equal((await ask(PORTS.closed, 'a.example', protocol, '@ok.example')).status, undefined)
      assert.equal(lab.namesHeard, before, 'no server has heard it')
    })
  }

  test('is refused over UDP where a rule wants TCP', async () => {
    const [udp, tcp] = [
      await ask(PORTS.tcpAlone, 'a.example', '@ok.example'),
      await ask(PORTS.tcpAlone, 'a.example', '+tcp', '@ok.example'),
    ]
    assert.deepEqual([udp.status, tcp.status], [undefined, 'NOERROR'])
  })
})

test('of refused flows nothing was dialled', { skip: without('openssl') }, async () => {
  const { records } = lab.limpid
  const dialled = records.filter(({ listener, upstream }) => listener === 'all' && upstream !== undefined)
  const byTcp = dialled.filter(({ protocol }) => protocol === 'tcp')
  assert.equal((await lab.limpid.stats()).dials, byTcp.length)
})
