import { Server, Socket } from 'node:net'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { Intercept, ListenerConfig, Path } from '../config/types.ts'
import { Host } from '../lab/host.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import type { HostFacts } from '../sys/host.ts'
import { hostFacts } from '../sys/host.ts'
import { originalDestination, setIpv6Only, setMark, setReuseAddress, setTransparent } from '../sys/options.ts'
import { mustRun } from '../sys/program.ts'
import { bindSocket, closeFd, listenSocket, openTcp } from '../sys/socket.ts'
import { ebtablesGuards, ebtablesScripts } from './ebtables.ts'
import { FAMILIES, type InstalledRules, listener, setSysctl } from './gateway.fixture.ts'
import { type Interception, interceptionsOf } from './interception.ts'
import { iptablesScripts } from './iptables.ts'
import { listOurChains, loadChains, removeChains } from './iptables-commands.ts'
import { iptablesGuards } from './iptables-guard.ts'
import type { ChainProgram } from './iptables-text.ts'
import { hex, ipRuleArgs, ipRulesFor, localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

export const MODES: readonly Exclude<Intercept, 'none'>[] = ['tproxy', 'redirect', 'dnat', 'mark']

/** A listener on one path, listening where its mode wants it to. */
export function listenerFor(
  intercept: Exclude<Intercept, 'none'>,
  path: Path,
  changes: Partial<ListenerConfig> = {},
): ListenerConfig {
  const port = intercept === 'mark' ? 80 : 50_080
  const addresses = {
    tproxy: ['127.0.0.1', '::1'],
    redirect: ['0.0.0.0', '::'],
    mark: ['0.0.0.0', '::'],
    dnat: {
      forwarded: ['10.0.3.101', 'fd00:3::101'],
      local: ['127.0.0.1', '::1'],
      bridged: ['10.0.9.101', 'fd00:9::101'],
    }[path],
  }
  return listener({
    name: `${intercept} ${path}`,
    intercept,
    paths: [path],
    listen: addresses[intercept].map((address) => ({ address, port })),
    match: { ...MATCH_ANY, ports: [{ from: 80, to: 80 }] },
    ...changes,
  })
}

/** What the installer does, for iptables alone: chains, ip rules and routes. Loads guards first. */
export async function installChains(...listeners: readonly ListenerConfig[]): Promise<InstalledRules> {
  const interceptions = allInterceptions(listeners, hostFacts())
  for (const script of guardsOf(interceptions)) await loadChains(asChains(script))
  await changeRouting('add')
  for (const script of scriptsOf(interceptions)) await loadChains(asChains(script))
  const removeAll = async (isGone: (name: string) => boolean) => {
    for (const { program, name } of await listOurChains()) if (isGone(name)) await removeChains(program, name)
  }
  return {
    removeMain: () => removeAll((name) => !name.endsWith('guard')),
    [Symbol.asyncDispose]: async () => {
      await removeAll(() => true)
      await changeRouting('del')
    },
  }
}

export function allInterceptions(listeners: readonly ListenerConfig[], facts: HostFacts): Interception[] {
  return listeners.flatMap((listener) =>
    listener.families.flatMap((family) => interceptionsOf(listener, family, facts)),
  )
}

export function scriptsOf(interceptions: readonly Interception[]): Script[] {
  const protocols = new Set(interceptions.map(({ protocol }) => protocol))
  const divert = FAMILIES.flatMap((family) => [...protocols].map((protocol) => ({ family, protocol })))
  const input = { rules: DEFAULT_RULES, interceptions, forwards: [], divert, bypass: [] }
  return [...iptablesScripts(input), ...ebtablesScripts(DEFAULT_RULES, interceptions)]
}

export function guardsOf(interceptions: readonly Interception[]): Script[] {
  const guards = iptablesGuards({ rules: DEFAULT_RULES, interceptions, forwards: false })
  return [...guards, ...ebtablesGuards(DEFAULT_RULES, interceptions)]
}

export function asChains(script: Script): Script & { program: ChainProgram } {
  if (script.program === 'nft') throw new Error('not a script of iptables')
  return { ...script, program: script.program }
}

async function changeRouting(verb: 'add' | 'del'): Promise<void> {
  const mark = `${hex(localMark(DEFAULT_RULES))}/${hex(DEFAULT_RULES.markMask)}`
  for (const family of [4, 6] as const) {
    const lines = [
      ...ipRulesFor(family, DEFAULT_RULES).map((rule) => `rule ${verb} ${ipRuleArgs(rule).join(' ')}`),
      `rule ${verb} pref 193 fwmark ${mark} lookup 19536`,
      `route ${verb} local default dev lo table 19536`,
    ]
    await mustRun('ip', [`-${family}`, '-batch', '-'], { input: lines.join('\n') })
  }
}

/** Listens like the listener, dials the original destination as its source wants, and answers `to DESTINATION: WHAT THE SERVER SAYS`. */
export function relayFor(listener: ListenerConfig): AsyncDisposable {
  const servers = listener.listen.map((endpoint) => relayAt(endpoint, listener))
  return {
    [Symbol.asyncDispose]: async () => {
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
    },
  }
}

function relayAt(endpoint: Endpoint, { intercept, source }: ListenerConfig): Server {
  const family = familyOf(endpoint.address)
  const fd = openTcp(family)
  setReuseAddress(fd)
  if (intercept === 'tproxy' || intercept === 'mark') setTransparent(fd, family)
  setMark(fd, DEFAULT_RULES.bypassMark)
  if (family === 6) setIpv6Only(fd)
  bindSocket(fd, endpoint)
  listenSocket(fd, 64)
  const server = new Server((client) => {
    client.on('error', () => {})
    const { _handle } = client as unknown as { _handle: { fd: number } }
    const rewritten = intercept === 'redirect' || intercept === 'dnat'
    const own = { address: client.localAddress!, port: client.localPort! }
    const destination = rewritten ? originalDestination(_handle.fd, family)! : own
    const peer = { address: client.remoteAddress!, port: client.remotePort! }
    const upstream = dial(destination, family, source === 'proxy' ? undefined : peer, source === 'client-port')
    upstream.on('error', (error: NodeJS.ErrnoException) => client.end(`cannot dial: ${error.code}`))
    client.write(`to ${formatEndpoint(destination)}: `)
    upstream.pipe(client)
    client.on('close', () => upstream.destroy())
  })
  return server.listen({ fd })
}

function dial(to: Endpoint, family: Family, from: Endpoint | undefined, withPort: boolean): Socket {
  const fd = openTcp(family)
  setMark(fd, DEFAULT_RULES.bypassMark)
  if (from !== undefined) {
    setTransparent(fd, family)
    setReuseAddress(fd)
    try {
      bindSocket(fd, { address: from.address, port: withPort ? from.port : 0 })
    } catch (error) {
      closeFd(fd)
      throw error
    }
  }
  return new Socket({ fd, allowHalfOpen: true }).connect({ host: to.address, port: to.port })
}

/** A bridge of this host, 10.0.9.101, with Y 10.0.9.1 on port `b-y` and Z 10.0.9.2 on port `b-z`. */
export interface Bridge {
  readonly y: Host
  readonly z: Host
  close(): Promise<void>
}

export async function raiseBridge(): Promise<Bridge> {
  const [y, z] = await Promise.all([Host.create('bridged Y'), Host.create('bridged Z')])
  for (const host of [y, z]) host.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
  // with 1, the default, the inet hooks see a frame while it is still on the bridge, and what they decide is lost
  for (const key of ['iptables', 'ip6tables']) setSysctl(`net.bridge.bridge-nf-call-${key}`, '0')
  await mustRun('ip', ['link', 'add', 'br9', 'type', 'bridge'])
  for (const [host, name, number] of [
    [y, 'b-y', 1],
    [z, 'b-z', 2],
  ] as const) {
    await mustRun('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'x', 'netns', host.path])
    await mustRun('ip', ['link', 'set', name, 'master', 'br9', 'up'])
    const there = [
      `address add 10.0.9.${number}/24 dev x`,
      `address add fd00:9::${number}/64 dev x nodad`,
      'link set x up',
    ]
    await host.run('ip', ['-batch', '-'], { input: there.join('\n') })
  }
  const here = ['link set br9 up', 'address add 10.0.9.101/24 dev br9', 'address add fd00:9::101/64 dev br9 nodad']
  await mustRun('ip', ['-batch', '-'], { input: here.join('\n') })
  const servers = [80, 81].flatMap((port) => ['0.0.0.0', '::'].map((address) => z.listen({ address, port })))
  for (const server of servers) {
    server.on('connection', (socket) => {
      socket.on('error', () => {})
      socket.end(`server saw ${formatEndpoint({ address: socket.remoteAddress!, port: socket.remotePort! })}`)
    })
  }
  return {
    y,
    z,
    close: async () => {
      for (const server of servers) server.close()
      await Promise.all([y.close(), z.close()])
    },
  }
}
