import { writeFileSync } from 'node:fs'
import { Host } from '../lab/host.ts'
import type { Family } from '../net/address.ts'
import { familySwitch } from '../ruleset/ip-commands.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'

/** Addresses of one probe: the client's, ours on its link, the server's, ours on its link. */
export interface ProbeAddresses {
  readonly client: string
  readonly nearClient: string
  readonly server: string
  readonly nearServer: string
}

/** A throw-away client and server, each on a link to this host. All of it goes with this process. */
export interface ProbeNetwork extends AsyncDisposable {
  readonly client: Host
  readonly server: Host
  readonly clientLink: string
  readonly serverLink: string
  readonly addresses: Partial<Record<Family, ProbeAddresses>>
}

export const SERVER_LINK = 'limpid-ds'
const PREFIX_LENGTH: Record<Family, number> = { 4: 30, 6: 64 }
const CANDIDATES = 16
const OUR_MAC = '02:00:00:00:00:01' // locally administered; seen by nobody else
const THEIR_MAC = '02:00:00:00:00:02'

/** Benchmarking ranges, which no host on the Internet has: RFC 2544 §C.2.2, RFC 5180 §8. */
function candidate(family: Family, at: number): ProbeAddresses {
  if (family === 4) {
    const net = `198.18.${at * 16 + 7}`
    return { nearClient: `${net}.1`, client: `${net}.2`, nearServer: `${net}.5`, server: `${net}.6` }
  }
  const [c, s] = [(at * 2 + 0xd0).toString(16), (at * 2 + 0xd1).toString(16)]
  return {
    nearClient: `2001:2:0:${c}::1`,
    client: `2001:2:0:${c}::2`,
    nearServer: `2001:2:0:${s}::1`,
    server: `2001:2:0:${s}::2`,
  }
}

/** The first of the benchmarking networks that this host has no route to but the default one; undefined when all are taken. */
export async function freeAddresses(family: Family): Promise<ProbeAddresses | undefined> {
  for (let at = 0; at < CANDIDATES; at++) {
    const addresses = candidate(family, at)
    const free = await Promise.all([addresses.client, addresses.server].map((address) => isFree(family, address)))
    if (free.every((each) => each)) return addresses
  }
  return undefined
}

async function isFree(family: Family, address: string): Promise<boolean> {
  const args = ['-j', familySwitch(family), 'route', 'show', 'table', 'all', 'match', address]
  const text = (await mustRun('ip', args)).trim()
  const covering = JSON.parse(text === '' ? '[]' : text) as { dst: string }[]
  return covering.every(({ dst }) => dst === 'default')
}

/**
 * Attaches client and server to the calling thread's network namespace. Should this process die of whatever, the kernel
 * drops the namespaces, with them the links, and with these all addresses and routes.
 * @throws LimpidError, SyscallError; then nothing is left.
 */
export async function attachProbe(
  clientLink: string,
  addresses: Partial<Record<Family, ProbeAddresses>>,
): Promise<ProbeNetwork> {
  const hosts: Host[] = []
  const close = async () => {
    await Promise.all(hosts.map((host) => host.close()))
    // a namespace is cleaned up after its last descriptor is closed; the links can go at once
    for (const link of [clientLink, SERVER_LINK]) await mustRun('ip', ['link', 'del', link]).catch(() => {})
  }
  try {
    for (const name of ['doctor client', 'doctor server']) hosts.push(await Host.create(name))
    const [client, server] = hosts as [Host, Host]
    await attach(client, clientLink, addresses, 'client')
    await attach(server, SERVER_LINK, addresses, 'server')
    return { client, server, clientLink, serverLink: SERVER_LINK, addresses, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

async function attach(
  host: Host,
  link: string,
  addresses: Partial<Record<Family, ProbeAddresses>>,
  role: 'client' | 'server',
): Promise<void> {
  const here = [`link set ${link} up`]
  const there = ['link set probe up']
  for (const family of [4, 6] as const) {
    const found = addresses[family]
    if (found === undefined) continue
    const [own, theirs] = role === 'client' ? [found.nearClient, found.client] : [found.nearServer, found.server]
    const nodad = family === 6 ? ' nodad' : ''
    here.push(`address add ${own}/${PREFIX_LENGTH[family]} dev ${link}${nodad}`)
    there.push(`address add ${theirs}/${PREFIX_LENGTH[family]} dev probe${nodad}`)
    there.push(`route add default via ${own} dev probe`)
    // neighbour discovery is a matter of its own, and a firewall that drops it would hide what becomes of our packets
    here.push(`neighbour replace ${theirs} lladdr ${THEIR_MAC} dev ${link}`)
    there.push(`neighbour replace ${own} lladdr ${OUR_MAC} dev probe`)
  }
  if (host.hasIpv6) host.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
  await mustRun('ip', [
    ...['link', 'add', link, 'address', OUR_MAC, 'type', 'veth'],
    ...['peer', 'name', 'probe', 'address', THEIR_MAC, 'netns', host.path],
  ])
  // duplicate address detection would keep the links silent for a second or two
  const dad = `net.ipv6.conf.${link.replaceAll('.', '/')}.accept_dad`
  if (readSysctl(dad) !== undefined) writeFileSync(sysctlPath(dad), '0')
  await mustRun('ip', ['-batch', '-'], { input: here.join('\n') })
  await host.run('ip', ['-batch', '-'], { input: there.join('\n') })
}

/**
 * What the client sends comes in as if by the link `as`: a filter on the probe's own link hands it over there. Nothing of
 * that link's is changed.
 */
export async function pretendLink({ clientLink }: ProbeNetwork, as: string): Promise<void> {
  await mustRun('tc', ['qdisc', 'replace', 'dev', clientLink, 'ingress'])
  await mustRun('tc', ['filter', 'del', 'dev', clientLink, 'ingress']).catch(() => {})
  for (const [protocol, pref] of [
    ['ip', '1'],
    ['ipv6', '2'],
  ] as const) {
    await mustRun('tc', [
      ...['filter', 'add', 'dev', clientLink, 'parent', 'ffff:', 'pref', pref, 'protocol', protocol],
      ...['u32', 'match', 'u32', '0', '0', 'action', 'mirred', 'ingress', 'redirect', 'dev', as],
    ])
  }
}
