import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createAccount, createOperator, createUser, type KeyPair } from '@nats-io/nkeys'
import type { NatsConfig } from '../config/nats.ts'
import { Host } from '../lab/host.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { until } from '../lab/traffic.fixture.ts'
import { enterNetNamespace } from '../sys/namespace.ts'
import { isInstalled } from '../sys/program.ts'
import { connectOnce } from './nats-link.ts'

await enterNamespaces()

const missing = ['nats-server', 'openssl'].filter((program) => !isInstalled(program))
const folder = mkdtempSync(join(tmpdir(), 'limpid-nats-'))
const at = (name: string): string => join(folder, name)
let host: Host

before(async () => {
  host = await Host.create('core')
  enterNetNamespace(host.namespaceFd)
})

after(async () => {
  await host.close()
  rmSync(folder, { recursive: true })
})

const openssl = async (...args: string[]): Promise<void> => void (await host.run('openssl', args))

/** A key and a certificate, signed by `issuer` or by itself. */
async function certify(name: string, extensions: readonly string[], issuer?: string): Promise<void> {
  const signed = issuer === undefined ? [] : ['-CA', at(`${issuer}.pem`), '-CAkey', at(`${issuer}.key`)]
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-noenc', '-keyout', at(`${name}.key`)]
  const added = extensions.flatMap((extension) => ['-addext', extension])
  await openssl('req', '-x509', ...key, ...signed, '-subj', `/CN=${name}`, ...added, '-out', at(`${name}.pem`))
}

const NOBODY: NatsConfig = {
  servers: [],
  credentials: undefined,
  user: undefined,
  password: undefined,
  tls: undefined,
}

class Server implements AsyncDisposable {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(port: number, config: string): Promise<Server> {
    const file = at(`${port}.conf`)
    writeFileSync(file, `listen: "127.0.0.1:${port}"\n${config}`)
    let said = ''
    const child = host.spawn('nats-server', ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr!.on('data', (text) => {
      said += text
    })
    await until(() => said.includes('Server is ready') || child.exitCode !== null, 'nats-server')
    assert.equal(child.exitCode, null, said)
    return new Server(child)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGTERM')
    await ended
  }
}

/** What the server lets us do there, or why not. */
async function reached(config: Partial<NatsConfig> & { readonly servers: readonly string[] }): Promise<string> {
  try {
    const connection = await connectOnce({ ...NOBODY, ...config }, 'limpid test')
    await connection.flush()
    await connection.close()
    return 'reached'
  } catch (error) {
    return (error as Error).message
  }
}

describe('NATS', { skip: missing.length > 0 ? `${missing.join(' and ')} is not installed` : false }, () => {
  before(async () => {
    await certify('ca', ['basicConstraints=critical,CA:TRUE'])
    await certify('other', ['basicConstraints=critical,CA:TRUE'])
    await certify('elsewhere', ['subjectAltName=IP:127.0.0.9', 'basicConstraints=critical,CA:FALSE'], 'ca')
    await certify('server', ['subjectAltName=IP:127.0.0.1', 'basicConstraints=critical,CA:FALSE'], 'ca')
    await certify('gateway', ['extendedKeyUsage=clientAuth', 'basicConstraints=critical,CA:FALSE'], 'ca')
  })

  test('TLS: the server is believed by the authority of the file alone, and believes us by our certificate', async () => {
    const tls = `tls { cert_file: "${at('server.pem')}", key_file: "${at('server.key')}", ca_file: "${at('ca.pem')}", verify: true }`
    await using _ = await Server.start(4222, `${tls}\n`)
    const ours = { ca: at('ca.pem'), cert: at('gateway.pem'), key: at('gateway.key') }
    for (const servers of [['tls://127.0.0.1:4222'], ['nats://127.0.0.1:4222']]) {
      assert.equal(await reached({ servers, tls: ours }), 'reached')
    }
    const servers = ['nats://127.0.0.1:4222']
    assert.match(
      await reached({ servers, tls: { ...ours, ca: at('other.pem') } }),
      /^NATS cannot be reached: .*certificate/,
    )
    assert.match(await reached({ servers, tls: { ...ours, ca: undefined } }), /^NATS cannot be reached: .*certificate/)
    assert.match(await reached({ servers }), /^NATS cannot be reached: /)
    const nameless = { ca: ours.ca, cert: undefined, key: undefined }
    assert.match(await reached({ servers, tls: nameless }), /^NATS cannot be reached: /)
    assert.match(await reached({ servers, tls: { ...ours, cert: at('gone.pem') } }), /cannot read \S+gone\.pem: ENOENT/)
    chmodSync(at('gateway.key'), 0o666)
    assert.match(await reached({ servers, tls: ours }), /gateway\.key: /)
    chmodSync(at('gateway.key'), 0o600)
    await using __ = await Server.start(4225, tls.replaceAll('server.', 'elsewhere.'))
    assert.match(await reached({ servers: ['nats://127.0.0.1:4225'], tls: ours }), /altnames/)
  })

  test('TLS is what tls:// asks for: a server without it is not spoken to in the clear', async () => {
    await using _ = await Server.start(4223, '')
    assert.match(await reached({ servers: ['tls://127.0.0.1:4223'] }), /server does not support .tls./)
    const tls = { ca: at('ca.pem'), cert: undefined, key: undefined }
    assert.match(await reached({ servers: ['nats://127.0.0.1:4223'], tls }), /server does not support .tls./)
    assert.equal(await reached({ servers: ['nats://127.0.0.1:4223'] }), 'reached')
    let said = ''
    const between = createServer((socket) => {
      socket.on('error', () => {})
      socket.on('data', (bytes) => {
        said += bytes
      })
      socket.write('INFO {"version":"2.9.10","proto":1,"max_payload":1048576,"tls_available":1}\r\n')
    })
    await once(between.listen(4227, '127.0.0.1'), 'listening')
    const who = { servers: ['tls://127.0.0.1:4227'], user: 'gateway', password: 'secret' }
    assert.match(await reached(who), /^NATS cannot be reached: the server does not offer TLS/)
    assert.equal(said, '')
    between.close()
  })

  test('user and password', async () => {
    await using _ = await Server.start(4224, 'authorization { user: gateway, password: "s3cret word" }\n')
    const servers = ['nats://127.0.0.1:4224']
    assert.equal(await reached({ servers, user: 'gateway', password: 's3cret word' }), 'reached')
    assert.match(
      await reached({ servers, user: 'gateway', password: 'other' }),
      /^NATS cannot be reached: .*[Aa]uthorization/,
    )
    assert.match(await reached({ servers }), /^NATS cannot be reached: .*[Aa]uthorization/)
  })

  test('a file of credentials: the user of its JWT, proven with its key', async () => {
    const [operator, account, user] = [createOperator(), createAccount(), createUser()]
    const limits = { subs: -1, data: -1, payload: -1 }
    const forAccount = { ...limits, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 }
    const operatorJwt = jwtOf(operator, operator, { type: 'operator', version: 2 })
    const accountJwt = jwtOf(operator, account, { limits: forAccount, type: 'account', version: 2 })
    const userJwt = jwtOf(account, user, { ...limits, pub: {}, sub: {}, type: 'user', version: 2 })
    const preload = `resolver_preload: { ${account.getPublicKey()}: "${accountJwt}" }`
    await using _ = await Server.start(4226, `operator: "${operatorJwt}"\nresolver: MEMORY\n${preload}\n`)
    const write = (name: string, pair: KeyPair): string => {
      const part = (kind: string, text: string) => `-----BEGIN ${kind}-----\n${text}\n------END ${kind}------\n\n`
      const seed = new TextDecoder().decode(pair.getSeed())
      writeFileSync(at(name), part('NATS USER JWT', userJwt) + part('USER NKEY SEED', seed), { mode: 0o600 })
      return at(name)
    }
    const servers = ['nats://127.0.0.1:4226']
    assert.equal(await reached({ servers, credentials: write('gateway.creds', user) }), 'reached')
    assert.match(await reached({ servers, credentials: write('other.creds', createUser()) }), /[Aa]uthorization/)
    assert.match(await reached({ servers }), /[Aa]uthorization/)
  })
})

/** What `nsc` would write: a JWT with an Ed25519 signature of NATS (nats-io/jwt, version 2). */
function jwtOf(issuer: KeyPair, subject: KeyPair, nats: object): string {
  const coded = (part: object | Uint8Array): string =>
    Buffer.from(part instanceof Uint8Array ? part : JSON.stringify(part)).toString('base64url')
  const claims = { iat: 1, iss: issuer.getPublicKey(), sub: subject.getPublicKey(), name: 'limpid', nats }
  const jti = createHash('sha256').update(JSON.stringify(claims)).digest('hex')
  const signed = `${coded({ typ: 'JWT', alg: 'ed25519-nkey' })}.${coded({ jti, ...claims })}`
  return `${signed}.${coded(issuer.sign(Buffer.from(signed)))}`
}
