import type { Config, ListenerConfig, RulesConfig, Source } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, familyOf } from '../net/address.ts'
import type { HostFacts } from '../sys/host.ts'
import { type KnowsRow, predictKnows } from './knows.ts'
import { guardText, type Interception, nftText } from './nft.ts'
import { type IpRule, ipRulesFor, type LocalRoute } from './policy-routing.ts'

/** A sysctl that must change for interception to work on this host, and the value it goes back to. */
export interface SysctlChange {
  readonly key: string
  readonly value: string
  readonly former: string
  readonly why: string
}

/** Everything that goes into the kernel for a config on one host, and what follows from it. Holds no state. */
export interface Plan {
  readonly rules: RulesConfig
  /** What `nft -f` takes; '' when the kernel need not know of anything. `ownedText` makes the variant with an owner. */
  readonly nftText: string
  /** A second nft table that outlives the first one and drops what it did not mark; undefined when all is `open`. */
  readonly guardText: string | undefined
  readonly ipRules: readonly IpRule[]
  readonly routes: readonly LocalRoute[]
  readonly sysctls: readonly SysctlChange[]
  readonly knows: readonly KnowsRow[]
  /** What the operator should know about the plan: families left out and the like. */
  readonly notes: readonly string[]
}

export interface PlanOptions {
  /** An interface that is not there: `refuse` throws; `note` plans all the same, to compare with what is installed. */
  readonly missingInterface?: 'refuse' | 'note'
}

export function isEmptyPlan(plan: Plan): boolean {
  return plan.nftText === ''
}

/**
 * Plans the kernel's part of a config. Pure.
 *
 * No sysctl is in any plan for now. Measured on Linux 6.18, client–proxy–server in namespaces: rp_filter 0, 1 and 2,
 * forwarding and early demux make no difference to TPROXY; `src_valid_mark=1` on the receiving interface or `all` makes
 * every marked IPv4 packet a martian, and `tcp_fwmark_accept=1` sends our answers into the local route; the ip rules
 * planned here keep both from happening, whatever the values are or become.
 * @throws LimpidError LIMPID_INTERFACE for an interface that this host does not have.
 */
export function planRuleset(config: Config, facts: HostFacts, options: PlanOptions = {}): Plan {
  const notes: string[] = []
  const interceptions: Interception[] = []
  const families = new Set<Family>()
  for (const listener of config.listeners) {
    const missing = checkInterfaces(listener, facts)
    if (missing !== undefined && options.missingInterface !== 'note') throw missing
    if (missing !== undefined) notes.push(missing.message)
    for (const family of servedFamilies(listener, facts, notes)) {
      if (listener.intercept === 'tproxy') interceptions.push({ listener, family, to: listenAddress(listener, family) })
      if (listener.intercept === 'tproxy' || needsDivert(listener, family, facts)) families.add(family)
    }
  }
  const sorted = [...families].sort()
  const needed = sorted.length > 0
  return {
    rules: config.rules,
    nftText: needed ? nftText(config.rules, interceptions) : '',
    guardText: guardText(config.rules, interceptions),
    ipRules: sorted.flatMap((family) => ipRulesFor(family, config.rules)),
    routes: sorted.map((family) => ({ family, table: config.rules.routeTable })),
    sysctls: [],
    knows: config.listeners.flatMap((listener) => predictKnows(listener, ownAddresses(facts))),
    notes,
  }
}

function servedFamilies(listener: ListenerConfig, facts: HostFacts, notes: string[]): Family[] {
  return listener.families.filter((family) => {
    const why = whyNotServed(listener, family, facts)
    if (why !== undefined) notes.push(`listener ${listener.name}: IPv${family} is left out: ${why}`)
    return why === undefined
  })
}

function whyNotServed({ source, listen }: ListenerConfig, family: Family, facts: HostFacts): string | undefined {
  if (family === 6 && !facts.ipv6) return 'IPv6 is off on this host'
  if (!listen.some(({ address }) => familyOf(address) === family)) return `no IPv${family} address to listen on`
  if (typeof source === 'object' && familyOf(source.address) !== family)
    return `the source ${source.address} is not IPv${family}`
  return undefined
}

/** Where tproxy sends packets: a wildcard address would mean the receiving interface's own (net/netfilter/nft_tproxy.c). */
function listenAddress(listener: ListenerConfig, family: Family): Endpoint {
  const { address, port } = listener.listen.find((endpoint) => familyOf(endpoint.address) === family)!
  if (address === '0.0.0.0') return { address: '127.0.0.1', port }
  if (address === '::') return { address: '::1', port }
  return { address, port }
}

/** Whether packets addressed to somebody else must come to a socket of a listener that is not itself intercepting. */
function needsDivert(listener: ListenerConfig, family: Family, facts: HostFacts): boolean {
  const own = ownAddresses(facts)
  const listensElsewhere = listener.listen.some(
    ({ address }) => familyOf(address) === family && !isWildcard(address) && !own.has(address),
  )
  return listensElsewhere || isForeignSource(listener.source, own)
}

/** Whether answers to connections with this source are addressed to somebody else. */
export function isForeignSource(source: Source, own: ReadonlySet<string>): boolean {
  if (typeof source === 'object') return !own.has(source.address)
  return source !== 'proxy'
}

function isWildcard(address: string): boolean {
  return address === '0.0.0.0' || address === '::'
}

function ownAddresses(facts: HostFacts): ReadonlySet<string> {
  return new Set(['127.0.0.1', '::1', ...facts.interfaces.flatMap(({ addresses }) => addresses)])
}

/** @throws LimpidError LIMPID_INTERFACE for a name that no interface can have; returns it for one that is not there. */
function checkInterfaces(listener: ListenerConfig, facts: HostFacts): LimpidError | undefined {
  const known = facts.interfaces.map(({ name }) => name)
  let missing: LimpidError | undefined
  for (const name of [...listener.match.interfaces, ...listener.exclude.interfaces]) {
    const wildcard = name.endsWith('*') // nft: any name that begins like that, now or later
    const wellFormed = /^[^\s"/]{1,15}$/.test(name)
    if (wellFormed && (wildcard || known.includes(name))) continue
    const error = new LimpidError(
      'LIMPID_INTERFACE',
      `listener ${listener.name}: there is no interface ${name} on this host`,
      {
        cure: `it has ${known.join(', ')}; or write a prefix with an asterisk for interfaces that come later, as in ppp*`,
      },
    )
    if (!wellFormed) throw error
    missing ??= error
  }
  return missing
}
