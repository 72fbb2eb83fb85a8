import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { ADDRESSES, raiseTopology, type Topology, Z_TO_X } from '../lab/topology.ts'
import { until } from '../lab/traffic.fixture.ts'
import { formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { isInstalled, mustRun } from '../sys/program.ts'
import { type LabServers, openServers, PORTS, passwdLine } from './clients-servers.fixture.ts'

const { z } = ADDRESSES[4]
const PROGRAM_MS = 20_000
/** Another address of Y's: what it sends to Z's third one comes from there. */
const GUEST = '10.0.3.66'
const [Z_NAMELESS, Z_FOR_GUESTS] = ['10.0.4.66', '10.0.4.67']

/** What clients ask for. `nameless` is for protocols that say no name: Limpid's DNS has told the client that address. */
export const HOSTS = {
  allowed: 'ok.example',
  blocked: 'www.blocked.example',
  namelessBlocked: 'nameless.blocked.example',
  byGuest: 'guest.example',
  // these a browser asks by QUIC, see Browser.open()
  quicAllowed: 'quic.ok.example',
  quicBlocked: 'quic.blocked.example',
  quicByGuest: 'quic.guest.example',
} as const
export const ADDRESS_OF: Readonly<Record<string, string>> = {
  [HOSTS.allowed]: z,
  [HOSTS.blocked]: z,
  [HOSTS.namelessBlocked]: Z_NAMELESS,
  [HOSTS.byGuest]: Z_FOR_GUESTS,
  [HOSTS.quicAllowed]: z,
  [HOSTS.quicBlocked]: z,
  [HOSTS.quicByGuest]: Z_FOR_GUESTS,
}

const CONFIG = `
listeners:
  - name: names
    protocols: [udp, tcp]
    ports: ${PORTS.names}
    source: client
    dns: { rules: [{ suffixes: refused.example, then: refuse }] }
  - { name: all, protocols: [udp, tcp], source: client, timeouts: { session: 1s, query: 500ms } }
policy:
  peek: { silence: 300ms }
  rules:
    - { name: no-guests, sources: ${GUEST}, then: reject }
    - { name: closed-port, ports: [${PORTS.closed}, ${PORTS.closedQuic}], then: reject }
    - { name: names-are-told, ports: ${PORTS.names}, then: forward }
    - { name: blocked, hosts: .blocked.example, then: reject }
    - { name: tls-alone, protocols: tcp, ports: ${PORTS.tls}, detected: [http1, http2, ssh, unknown], then: reject }
    - { name: http-alone, protocols: tcp, ports: ${PORTS.http}, detected: [tls, http2, ssh, unknown], then: reject }
    - { name: no-quic, ports: ${PORTS.tlsAlone}, detected: quic, then: reject }
    - { name: tcp-alone, ports: ${PORTS.tcpAlone}, protocols: udp, then: reject }
`

/** What a program printed, or undefined where it failed. */
export type Said = string | undefined

/** Clients on Y and servers on Z that speak many protocols, and one Limpid between them with a policy. */
export class ClientsLab {
  readonly topology: Topology
  readonly limpid: LimpidProcess
  /** Of this lab alone; the home of all programs. */
  readonly folder: string
  readonly #servers: LabServers

  private constructor(topology: Topology, limpid: LimpidProcess, folder: string, servers: LabServers) {
    this.topology = topology
    this.limpid = limpid
    this.folder = folder
    this.#servers = servers
  }

  /** Needs openssl, for a certificate; of other programs those have no server that are missing. */
  static async raise(): Promise<ClientsLab> {
    const folder = mkdtempSync(join(tmpdir(), 'limpid-clients-'))
    const topology = await raiseTopology()
    try {
      await addAddresses(topology)
      await bindNames(folder)
      const file = join(folder, 'limpid.yaml')
      writeFileSync(file, CONFIG, { mode: 0o644 })
      const limpid = await LimpidProcess.start(topology.x, ['run', '-c', file])
      return new ClientsLab(topology, limpid, folder, await openServers(topology.z, folder, Z_NAMELESS))
    } catch (error) {
      await topology.close()
      throw error
    }
  }

  /** Runs a program on Y to its end, with `input` as its standard input. */
  async run(program: string, args: readonly string[], input = ''): Promise<Said> {
    const env = { ...process.env, LC_ALL: 'C', HOME: this.folder, GIT_TERMINAL_PROMPT: '0' }
    const child = this.topology.y.spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'], env, cwd: this.folder })
    child.stdin!.on('error', () => {}).end(input)
    let text = ''
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
    const timer = setTimeout(() => child.kill('SIGKILL'), PROGRAM_MS)
    const [code] = await once(child, 'close')
    clearTimeout(timer)
    return code === 0 ? text : undefined
  }

  /** Does `work`; returns what came of it, and the record of the TCP flow to that host and port. */
  async observe<T>(host: string, port: number, work: () => Promise<T>): Promise<{ result: T; record: FlowRecord }> {
    const { records } = this.limpid
    const before = records.length
    const result = await work()
    const to = formatEndpoint({ address: ADDRESS_OF[host]!, port })
    const isWanted = ({ protocol, originalDst }: FlowRecord) => protocol === 'tcp' && formatEndpoint(originalDst) === to
    const find = () => records.slice(before).find(isWanted)
    await until(() => find() !== undefined, `record of ${to}`)
    return { result, record: find()! }
  }

  /** Queries that servers have got. */
  get namesHeard(): number {
    return this.#servers.dns.reduce((sum, { heard }) => sum + heard.length, 0)
  }

  async close(): Promise<void> {
    assert.equal(await this.limpid.stop(), 0, this.limpid.stderr)
    for (const server of this.#servers.tcp) server.close()
    for (const server of this.#servers.dns) await server[Symbol.asyncDispose]()
    await this.topology.close()
    rmSync(this.folder, { recursive: true })
  }
}

async function addAddresses({ y, z }: Topology): Promise<void> {
  const onY = [`address add ${GUEST}/24 dev y-x`, `route add ${Z_FOR_GUESTS} via ${ADDRESSES[4].xy} src ${GUEST}`]
  await y.run('ip', ['-batch', '-'], { input: onY.join('\n') })
  const onZ = [Z_NAMELESS, Z_FOR_GUESTS].map((address) => `address add ${address}/24 dev ${Z_TO_X}`)
  await z.run('ip', ['-batch', '-'], { input: onZ.join('\n') })
}

/** Names for all programs of the lab, and a user for sshd: in the lab's own mount namespace. */
async function bindNames(folder: string): Promise<void> {
  const hosts = Object.entries(ADDRESS_OF).map(([name, address]) => `${address} ${name}\n`)
  const files = {
    hosts: `127.0.0.1 localhost\n${hosts.join('')}`,
    passwd: `${readFileSync('/etc/passwd', 'utf8')}${passwdLine(folder)}`,
  }
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(folder, name), text, { mode: 0o644 })
    await mustRun('mount', ['--bind', join(folder, name), `/etc/${name}`])
  }
}

/** Why a test is skipped; false when it is not. */
export function without(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => !isInstalled(program))
  return missing.length === 0 ? false : `${missing.join(', ')} is not installed`
}
