import type { ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Family, formatEndpoint } from '../net/address.ts'
import { portsContain } from '../net/ports.ts'
import { effectiveCapabilities } from '../sys/capability.ts'
import { readSysctl } from '../sys/host.ts'
import { type Probe, type Run, whereItDied } from './autopsy.ts'
import type { Examined } from './examined.ts'
import { type CheckId, type Finding, ok, unknown, wrong } from './finding.ts'
import { attachProbe, freeAddresses, type ProbeAddresses, type ProbeNetwork, pretendLink } from './probe-network.ts'
import { CLIENT_LINK, planProbe, takesAnyOf } from './probe-plan.ts'
import { dialThrough, isThrough, type TcpOutcome } from './probe-tcp.ts'
import { probeServer } from './server-probe.ts'
import { spoofFinding } from './spoof-probe.ts'
import { probeTargets } from './target-probe.ts'
import { askThrough, UNTAKEN_PORT, udpFindings } from './udp-probe.ts'
import { wayTo } from './ways.ts'

const TOTAL_MS = 8_000 // all packets together

/** Pushes packets of a throw-away client to a throw-away server through the installed rules, and says where they died. */
export async function probePackets(examined: Examined, checks: readonly Finding[]): Promise<Finding[]> {
  const servers =
    examined.server === undefined ? [] : await tryProbe('server', () => probeServer(examined, examined.server!))
  const targets = await tryProbe('forward', () => probeTargets(examined.config))
  return [...servers, ...targets, ...(await tryProbe('packets', () => probeListeners(examined, checks)))]
}

async function tryProbe(id: CheckId, work: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof LimpidError)) throw error
    return [unknown(id, `packets could not be sent: ${error.message}`, error.cure)]
  }
}

async function probeListeners(examined: Examined, checks: readonly Finding[]): Promise<Finding[]> {
  const refusal = whyNot(examined)
  if (refusal !== undefined) return [refusal]
  const addresses = await chooseAddresses(examined)
  const { probes, findings } = planProbes(examined, addresses)
  const deadlineAt = performance.now() + TOTAL_MS
  let first = true
  for (const own of new Set(probes.map(({ plan }) => linkOf(plan)))) {
    await using network = await attachProbe(own, addresses)
    if (first && !examined.config.listeners.some(takesUntaken)) findings.push(...(await udpFindings(network)))
    first = false
    const mine = probes.filter(({ plan }) => linkOf(plan) === own)
    for (const probe of mine) findings.push(...(await runProbe({ examined, checks, network, deadlineAt }, probe)))
  }
  return findings
}

/** The port at which datagrams are to pass by is one that this listener takes. */
function takesUntaken({ protocols, match }: ListenerConfig): boolean {
  return protocols.includes('udp') && (match.ports.length === 0 || portsContain(match.ports, UNTAKEN_PORT))
}

type Addresses = Partial<Record<Family, ProbeAddresses>>

/** The probes that can be made, and a finding for each that cannot. */
function planProbes({ config }: Examined, addresses: Addresses): { probes: Probe[]; findings: Finding[] } {
  const probes: Probe[] = []
  const findings: Finding[] = []
  const taking = config.listeners.filter(({ intercept }) => intercept !== 'none')
  for (const [at, listener] of taking.entries()) {
    for (const family of listener.families.filter((each) => takesAnyOf(listener, each))) {
      for (const protocol of listener.protocols) {
        const free = addresses[family]
        const earlier = taking.slice(0, at).filter(({ protocols }) => protocols.includes(protocol))
        const plan = free === undefined ? undefined : planProbe(listener, family, free, earlier)
        if (plan?.kind === 'probe') {
          probes.push({ listener, family, protocol, plan })
          continue
        }
        const why = plan?.why ?? noAddresses(family)
        const packets = protocol === 'tcp' ? 'packets' : 'datagrams'
        findings.push(unknown('packets', `no ${packets} over IPv${family} for listener ${listener.name}: ${why}`))
      }
    }
  }
  return { probes, findings }
}

function noAddresses(family: Family): string {
  return family === 4 ? 'routes to all of 198.18.0.0/16 are there' : 'no free network in 2001:2::/48, or no IPv6'
}

function whyNot({ rulesAreThere, leftBehind, config, state }: Examined): Finding | undefined {
  if (config.listeners.every(({ intercept }) => intercept === 'none'))
    return unknown('packets', 'no packets sent: the config takes none')
  if (leftBehind !== undefined)
    return unknown('packets', 'no packets sent: Limpid is not running, and only part of its rules is left')
  const missing = (['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'] as const).filter((name) => !effectiveCapabilities().has(name))
  if (missing.length > 0) {
    return unknown(
      'packets',
      `no packets sent: this process lacks ${missing.join(' and ')}, to attach a client and a server`,
      'run limpid doctor as root',
    )
  }
  if (!rulesAreThere) return unknown('packets', 'no packets sent: no rules are installed that they could go through')
  return state instanceof LimpidError ? unknown('packets', `no packets sent: ${state.message}`) : undefined
}

async function chooseAddresses({ facts }: Examined): Promise<Addresses> {
  const [four, six] = await Promise.all([freeAddresses(4), facts.ipv6 ? freeAddresses(6) : undefined])
  return { ...(four === undefined ? {} : { 4: four }), ...(six === undefined ? {} : { 6: six }) }
}

function linkOf({ entry }: Probe['plan']): string {
  return 'own' in entry ? entry.own : CLIENT_LINK
}

async function runProbe(run: Run, probe: Probe): Promise<Finding[]> {
  const { network, deadlineAt } = run
  const { listener, family, protocol, plan } = probe
  const name = `${protocol.toUpperCase()} over IPv${family}`
  const { client, server } = network.addresses[family]!
  if (performance.now() > deadlineAt) return [unknown('packets', `${name} to listener ${listener.name}: no time left`)]
  const [toClient, toServer] = await Promise.all([wayTo({ to: client }), wayTo({ to: server })])
  for (const [to, way, link] of [
    [client, toClient, network.clientLink],
    [server, toServer, network.serverLink],
  ] as const) {
    if (way.kind === 'by' && way.dev === link) continue
    return [
      unknown(
        'packets',
        `no packets over IPv${family}: an ip rule of this host leads ${to} elsewhere than to the probe's ${link}`,
      ),
    ]
  }
  if ('as' in plan.entry) {
    const obstacle = await pretend(network, plan.entry.as, family)
    if (obstacle !== undefined) return [unknown('packets', `${name} to listener ${listener.name}: ${obstacle}`)]
  }
  const entryLink = 'as' in plan.entry ? plan.entry.as : network.clientLink
  if (protocol === 'udp') return [await runUdpProbe(run, probe, entryLink)]
  const outcome = await dialThrough(network, family, plan.port)
  if (!isThrough(outcome, listener)) return [await whereItDied(run, probe, entryLink, name)]
  const came = ok('packets', through(name, listener, plan.port, outcome, entryLink))
  return family === 4 ? [came, await spoofFinding(network, plan.port, entryLink)] : [came]
}

/** One datagram, which has no handshake that could be followed: where it is lost, `limpid trace` shows the way. */
async function runUdpProbe({ network }: Run, { listener, family, plan }: Probe, link: string): Promise<Finding> {
  const { client, server } = network.addresses[family]!
  const { answered, taken, serverSaw } = await askThrough(network, family, plan.port)
  const what = `UDP over IPv${family} to port ${plan.port}, in by ${link}`
  const seen = serverSaw === undefined ? '' : `; the server saw ${formatEndpoint(serverSaw)}`
  const trace = `limpid trace ${client} ${formatEndpoint({ address: server, port: plan.port })} --protocol udp`
  if (listener.to !== undefined) {
    // whom it asks instead need not answer what a probe says
    return serverSaw === undefined
      ? ok('packets', `${what}, did not reach the server past listener ${listener.name}`)
      : wrong('packets', `${what}, is not taken by listener ${listener.name}${seen}`, trace)
  }
  if (answered && taken) return ok('packets', `${what}, was taken by listener ${listener.name} and answered${seen}`)
  if (!taken) return wrong('packets', `${what}, is not taken by listener ${listener.name}${seen}`, trace)
  return wrong('packets', `${what}, is taken by listener ${listener.name}, and not answered${seen}`, trace)
}

function through(
  name: string,
  listener: ListenerConfig,
  port: number,
  { serverSaw, ms }: TcpOutcome,
  link: string,
): string {
  const took = `${name} to port ${port}, in by ${link}, was taken by listener ${listener.name}`
  if (serverSaw === undefined)
    return `${took}, which dials ${listener.to?.host ?? 'another host'} (${Math.round(ms)} ms)`
  return `${took} and dialled on; the server saw ${formatEndpoint(serverSaw)} (${Math.round(ms)} ms)`
}

/** Why packets cannot come in as if by that link; nothing when they can. */
async function pretend(network: ProbeNetwork, as: string, family: Family): Promise<string | undefined> {
  try {
    await pretendLink(network, as)
  } catch (error) {
    return `no packets can be put onto ${as}: ${(error as Error).message}`
  }
  const value = (name: string) => Number(readSysctl(`net.ipv4.conf.${name.replaceAll('.', '/')}.rp_filter`) ?? 0)
  if (family === 4 && Math.max(value('all'), value(as)) === 1) {
    return `rp_filter on ${as} is strict, so it would drop the probe's own addresses, which are not behind ${as}`
  }
  return undefined
}
