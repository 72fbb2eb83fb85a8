import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createHttp2Server, createSecureServer, type Http2ServerRequest } from 'node:http2'
import type { Server, Socket } from 'node:net'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { DnsServer, zoneOf } from '../apps/dns/server.fixture.ts'
import type { Host } from '../lab/host.ts'
import { pattern, sleep } from '../lab/traffic.fixture.ts'
import { findProgram, isInstalled, mustRun } from '../sys/program.ts'

/** `closed`, `closedQuic`, `tlsAlone` (no QUIC) and `tcpAlone` (no UDP) have servers, too: only a rule keeps clients from them. */
export const PORTS = {
  ...{ http: 80, http2: 81, tls: 443, quic: 443, ssh: 22, git: 9418, closed: 4000, closedQuic: 4001 },
  ...{ tlsAlone: 8443, names: 53, relayedNames: 5300, tcpAlone: 5301 },
} as const

export const SSH_USER = 'guest-of-the-lab'
const SSH_UID = 4242
/** Seed and size of what is in the repository. */
export const REPOSITORY_FILE = [9418, 1_000_000] as const
const STARTED_MS = 15_000
const ANYWHERE = '0.0.0.0'

/** The line of passwd(5) for the user of sshd. */
export function passwdLine(folder: string): string {
  return `${SSH_USER}:x:${SSH_UID}:${SSH_UID}::${folder}:/bin/sh\n`
}

export interface LabServers {
  readonly tcp: readonly Server[]
  readonly dns: readonly DnsServer[]
}

/** Servers on `host`. What programs bring them ends with the host. `dnsAddress` is what names have. */
export async function openServers(host: Host, folder: string, dnsAddress: string): Promise<LabServers> {
  await mustRun('openssl', certificateRequest(folder))
  if (isInstalled('git')) await startGit(host, folder)
  if (isInstalled('sshd') && isInstalled('ssh')) await startSsh(host, folder)
  if (isInstalled('gtlsserver')) await startQuic(host, folder)
  const [key, cert] = [readFileSync(join(folder, 'key.pem')), readFileSync(join(folder, 'cert.pem'))]
  const plain = createHttpServer((request, response) => {
    if (request.url!.startsWith('/repository')) serveGit(folder, request, response)
    else response.setHeader('connection', 'close').end(`HTTP/${request.httpVersion}`)
  })
  const http2 = createHttp2Server((request, response) => void response.end(`HTTP/${request.httpVersion}`))
  const secure = createSecureServer({ key, cert, allowHTTP1: true }, (request, response) => {
    const text = `HTTP/${request.httpVersion} over ${tlsVersion(request)}`
    if (request.httpVersionMajor === 1) response.setHeader('connection', 'close')
    response.end(text)
    request.stream?.session?.close() // else a browser would keep the connection
  })
  const at = (port: number, server: { emit(name: 'connection', socket: Socket): boolean }) =>
    // HTTP/2 of Node's does not answer a client's FIN by itself
    host.listen({ address: ANYWHERE, port }, { allowHalfOpen: false }).on('connection', (socket) => {
      server.emit('connection', socket)
    })
  const names = zoneOf(dnsAddress, '2001:db8::66')
  const namePorts = [PORTS.names, PORTS.relayedNames, PORTS.tcpAlone, PORTS.closed]
  return {
    tcp: [at(PORTS.http, plain), at(PORTS.http2, http2), at(PORTS.tls, secure), at(PORTS.tlsAlone, secure)],
    dns: await Promise.all(namePorts.map((port) => DnsServer.open(host, ANYWHERE, names, port))),
  }
}

function certificateRequest(folder: string): string[] {
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    join(folder, 'key.pem'),
  ]
  const names = [
    '-subj',
    '/CN=ok.example',
    '-addext',
    'subjectAltName=DNS:*.example,DNS:*.blocked.example',
    '-days',
    '2',
  ]
  return ['req', '-x509', ...key, ...names, '-out', join(folder, 'cert.pem')]
}

function tlsVersion({ socket, stream }: Http2ServerRequest): string {
  return ((stream?.session?.socket ?? socket) as TLSSocket).getProtocol() ?? 'nothing'
}

/** A repository with one file of 1 MB, by git's own protocol; by HTTP see serveGit(). */
async function startGit(host: Host, folder: string): Promise<void> {
  const work = join(folder, 'work')
  const git = (...args: string[]) => mustRun('git', ['-C', work, ...GIT_AUTHOR, ...args])
  mkdirSync(work)
  await git('init', '-q')
  writeFileSync(join(work, 'file'), Buffer.concat([...pattern(...REPOSITORY_FILE)]))
  await git('add', 'file')
  await git('commit', '-q', '-m', 'one file')
  await git('clone', '-q', '--bare', work, join(folder, 'repository'))
  const args = ['--export-all', `--base-path=${folder}`, '--reuseaddr', `--port=${PORTS.git}`]
  const core = (await mustRun('git', ['--exec-path'])).trim() // git itself would leave its daemon behind
  await started(host, join(core, 'git-daemon'), args, 'tcp', PORTS.git)
}

const GIT_AUTHOR = ['-c', 'user.name=lab', '-c', 'user.email=lab@example.org', '-c', 'safe.directory=*']

/** git's CGI program (git-http-backend(1), RFC 3875). */
function serveGit(folder: string, request: IncomingMessage, response: ServerResponse): void {
  const { pathname, searchParams } = new URL(request.url!, 'http://z')
  const env = {
    ...process.env,
    ...{ GIT_PROJECT_ROOT: folder, GIT_HTTP_EXPORT_ALL: '1', PATH_INFO: pathname, QUERY_STRING: `${searchParams}` },
    ...{ REQUEST_METHOD: request.method!, CONTENT_TYPE: request.headers['content-type'] ?? '' },
    ...{ HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '', REMOTE_ADDR: '127.0.0.1' },
  }
  const cgi = spawn(findProgram('git'), ['http-backend'], { env, stdio: ['pipe', 'pipe', 'ignore'] })
  request.pipe(cgi.stdin)
  const chunks: Buffer[] = []
  cgi.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  cgi.once('close', () => {
    const whole = Buffer.concat(chunks)
    const end = whole.indexOf('\r\n\r\n')
    for (const line of whole.toString('latin1', 0, end).split('\r\n')) {
      const [name, value] = line.split(': ')
      if (name === 'Status') response.statusCode = Number.parseInt(value!, 10)
      else response.setHeader(name!, value!)
    }
    response.end(whole.subarray(end + 4))
  })
}

/** sshd(8) as another user than root: there is only one in the lab's user namespace, to whom it would have to change. */
async function startSsh(host: Host, folder: string): Promise<void> {
  for (const key of ['host-key', 'user-key']) {
    await mustRun('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, key)])
  }
  host.setSysctls({ 'net.ipv4.ip_unprivileged_port_start': '0' })
  const config = join(folder, 'sshd_config')
  const lines = [
    ...[
      `Port ${PORTS.ssh}`,
      `HostKey ${join(folder, 'host-key')}`,
      `AuthorizedKeysFile ${join(folder, 'user-key.pub')}`,
    ],
    ...['PidFile none', 'StrictModes no', 'UsePAM no', 'PasswordAuthentication no'],
  ]
  writeFileSync(config, `${lines.join('\n')}\n`)
  const user = ['--user', `--map-user=${SSH_UID}`, `--map-group=${SSH_UID}`, '--']
  await started(host, 'unshare', [...user, findProgram('sshd'), '-D', '-e', '-f', config], 'tcp', PORTS.ssh)
}

/** HTTP/3 by ngtcp2. */
async function startQuic(host: Host, folder: string): Promise<void> {
  const pages = join(folder, 'pages')
  mkdirSync(pages)
  writeFileSync(join(pages, 'page.txt'), 'HTTP/3')
  for (const port of [PORTS.quic, PORTS.tlsAlone, PORTS.closedQuic]) {
    const files = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
    await started(host, 'gtlsserver', ['-q', '-d', pages, ANYWHERE, `${port}`, ...files], 'udp', port)
  }
}

async function started(host: Host, program: string, args: readonly string[], protocol: 'tcp' | 'udp', port: number) {
  const child = host.spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-1_000)
  })
  const deadlineAt = performance.now() + STARTED_MS
  const list = protocol === 'tcp' ? '-Hlnt' : '-Hlnu'
  while (!new RegExp(`:${port}\\s`).test(await host.run('ss', [list]))) {
    if (performance.now() > deadlineAt || child.exitCode !== null)
      throw new Error(`${program} does not listen: ${said}`)
    await sleep(10)
  }
}
