import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { closeSync, writeFileSync } from 'node:fs'
import { Server, Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import type { Endpoint } from '../net/address.ts'
import { familyOf } from '../net/address.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { enterNetNamespace, makeNetNamespace, openNetNamespace } from '../sys/namespace.ts'
import { setIpv6Only, setReuseAddress } from '../sys/options.ts'
import { findProgram, mustRun } from '../sys/program.ts'
import { bindSocket, closeFd, listenSocket, openTcp, openUdp } from '../sys/socket.ts'

const RUN_TIMEOUT_MS = 20_000
const DEFAULT_BACKLOG = 4096

/**
 * One host of the lab: a network namespace, which exists as long as this object is open. Only Limpid's socket() call is
 * used to place a socket there; what the peers do with it is Node's own networking.
 */
export class Host {
  readonly name: string
  /** /proc/self/fd number of the namespace. */
  readonly namespaceFd: number
  readonly #children = new Set<ChildProcess>()

  private constructor(name: string, namespaceFd: number) {
    this.name = name
    this.namespaceFd = namespaceFd
  }

  /** A new host with only `lo`, which is up. Needs the capabilities of a lab (see enterNamespaces). */
  static async create(name: string): Promise<Host> {
    const host = new Host(name, makeNetNamespace())
    await host.run('ip', ['link', 'set', 'lo', 'up'])
    return host
  }

  /** The namespace as a path that `ip link set … netns PATH` and `nsenter --net=PATH` take. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.namespaceFd}`
  }

  /** Runs `work`, which must not await, inside the host: sockets and processes that it makes belong there. */
  inside<T>(work: () => T): T {
    const home = openNetNamespace()
    enterNetNamespace(this.namespaceFd)
    try {
      return work()
    } finally {
      enterNetNamespace(home)
      closeSync(home)
    }
  }

  /** Starts a program (a path, or a name for findProgram) on the host. It is killed when the host closes. */
  spawn(program: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const child = this.inside(() => spawn(program.includes('/') ? program : findProgram(program), args, options))
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    child.once('error', () => this.#children.delete(child))
    return child
  }

  /** Runs a program on the host to its end; throws LIMPID_PROGRAM when it fails. Returns its stdout. */
  async run(program: string, args: readonly string[], options: { input?: string } = {}): Promise<string> {
    return await this.inside(() => mustRun(program, args, { ...options, timeoutMs: RUN_TIMEOUT_MS })) // spawns before its first await
  }

  /** Sets sysctls of the host's network namespace, by their dotted names. */
  setSysctls(values: Readonly<Record<string, string>>): void {
    this.inside(() => {
      for (const [key, value] of Object.entries(values)) writeFileSync(sysctlPath(key), value)
    })
  }

  /** Reads one sysctl of the host's network namespace. */
  sysctl(key: string): string {
    const value = this.inside(() => readSysctl(key))
    if (value === undefined) throw new LimpidError('LIMPID_LAB', `${this.name} has no sysctl ${key}`)
    return value
  }

  /** False where the kernel has IPv6 switched off. */
  get hasIpv6(): boolean {
    return this.inside(() => readSysctl('net.ipv6.conf.lo.disable_ipv6')) === '0'
  }

  /** A server socket of Node's own on this host, which listens when this returns. The caller closes it. */
  listen(endpoint: Endpoint, options: { allowHalfOpen?: boolean; backlog?: number } = {}): Server {
    const family = familyOf(endpoint.address)
    const fd = this.inside(() => openTcp(family))
    setReuseAddress(fd)
    if (family === 6) setIpv6Only(fd)
    const backlog = options.backlog ?? DEFAULT_BACKLOG
    try {
      bindSocket(fd, endpoint)
      listenSocket(fd, backlog)
    } catch (error) {
      closeFd(fd)
      throw error
    }
    return new Server({ allowHalfOpen: options.allowHalfOpen ?? true }).listen({ fd, backlog })
  }

  /** A client socket of Node's own on this host, connecting from `from` (any address and port when left out). */
  connect(to: Endpoint, options: { from?: Endpoint; allowHalfOpen?: boolean } = {}): Socket {
    const fd = this.inside(() => openTcp(familyOf(to.address)))
    if (options.from !== undefined) {
      setReuseAddress(fd)
      try {
        bindSocket(fd, options.from)
      } catch (error) {
        closeFd(fd)
        throw error
      }
    }
    const socket = new Socket({ fd, allowHalfOpen: options.allowHalfOpen ?? true, readable: true, writable: true })
    return socket.connect({ port: to.port, host: to.address })
  }

  /** A UDP socket of Node's own on this host, bound when this returns. The caller closes it. */
  datagramSocket(endpoint: Endpoint): DatagramSocket {
    const family = familyOf(endpoint.address)
    const fd = this.inside(() => openUdp(family))
    try {
      bindSocket(fd, endpoint)
    } catch (error) {
      closeFd(fd)
      throw error
    }
    // with a descriptor it listens when bind() returns, unless this is a worker of a cluster
    return createSocket(family === 4 ? 'udp4' : 'udp6').bind({ fd, exclusive: true })
  }

  /** Kills what still runs on the host and lets the namespace go. */
  async close(): Promise<void> {
    const ended = [...this.#children].map((child) => new Promise((resolve) => child.once('exit', resolve)))
    for (const child of this.#children) child.kill('SIGKILL')
    await Promise.all(ended)
    closeSync(this.namespaceFd)
  }
}
