import type { Config, ForwardConfig, ListenerConfig, RulesConfig, Source, WorkerCount } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Family, familyOf, isWildcard } from '../net/address.ts'
import { formatPrefix, type Prefix } from '../net/prefix.ts'
import type { HostFacts } from '../sys/host.ts'
import { ebtablesGuards, ebtablesNotes, ebtablesScripts } from './ebtables.ts'
import { type Diverted, type Interception, interceptionsOf, isUntouched, withoutDestinations } from './interception.ts'
import { iptablesNotes, iptablesScripts } from './iptables.ts'
import { iptablesGuards } from './iptables-guard.ts'
import { type KnowsRow, predictForward, predictKnows } from './knows.ts'
import { nftScripts } from './nft.ts'
import { guardScripts } from './nft-guard.ts'
import { type IpRule, ipRulesFor, type LocalRoute } from './policy-routing.ts'
import type { Script } from './script.ts'
import { neededSysctls, type SysctlChange } from './sysctls.ts'

/** The programs that rules are written for. */
export type BackendName = 'nft' | 'iptables'

/** Everything that goes into the kernel for a config on one host, and what follows from it. Holds no state. */
export interface Plan {
  readonly rules: RulesConfig
  readonly backend: BackendName
  /** What the scripts were written from. */
  readonly interceptions: readonly Interception[]
  readonly forwards: readonly ForwardConfig[]
  /** Destinations that the kernel forwards by itself, from the start. */
  readonly bypass: readonly Prefix[]
  /** Bring packets to listeners; none when the kernel need not know of anything. */
  readonly main: readonly Script[]
  /** Outlive the others, and drop what those did not take; none when all is `open`. */
  readonly guard: readonly Script[]
  readonly ipRules: readonly IpRule[]
  readonly routes: readonly LocalRoute[]
  readonly workers: WorkerCount
  readonly sysctls: readonly SysctlChange[]
  readonly knows: readonly KnowsRow[]
  /** What the operator should know about the plan: families left out and the like. */
  readonly notes: readonly string[]
}

export interface PlanOptions {
  /** For whom the rules are written: chooseBackend() knows what this host has. nft when left out, unless the config says. */
  readonly backend?: BackendName
  /** An interface that is not there: `refuse` throws; `note` plans all the same, to compare with what is installed. */
  readonly missingInterface?: 'refuse' | 'note'
}

export function isEmptyPlan(plan: Plan): boolean {
  return plan.main.length === 0
}

/**
 * Plans the kernel's part of a config. Pure.
 *
 * No sysctl is changed for routed traffic. Measured on Linux 6.18, client–proxy–server in namespaces: rp_filter 0, 1 and 2,
 * forwarding and early demux make no difference to TPROXY; `src_valid_mark=1` on the receiving interface or `all` makes
 * every marked IPv4 packet a martian, and `tcp_fwmark_accept=1` sends our answers into the local route; the ip rules
 * planned here keep both from happening, whatever the values are or become.
 * @throws LimpidError LIMPID_INTERFACE for an interface that this host does not have; LIMPID_FORWARDING when ports are to be
 *   forwarded while the host does not forward.
 */
export function planRuleset(config: Config, facts: HostFacts, options: PlanOptions = {}): Plan {
  const notes: string[] = []
  const interceptions: Interception[] = []
  const diverted = new Map<string, Diverted>()
  for (const listener of config.listeners) {
    const missing = checkInterfaces(listener, facts)
    if (missing !== undefined && options.missingInterface !== 'note') throw missing
    if (missing !== undefined) notes.push(missing.message)
    for (const family of servedFamilies(listener, facts, notes)) {
      const taken = listener.intercept === 'none' ? [] : interceptionsOf(listener, family, facts)
      interceptions.push(...taken)
      notes.push(...bridgeNotes(taken, facts))
      if (!taken.some(isUntouched) && !needsDivert(listener, family, facts)) continue
      for (const protocol of listener.protocols) diverted.set(`${family} ${protocol}`, { family, protocol })
    }
  }
  checkForwarding(config.forwards, facts)
  notes.push(...bypassNotes(config.bypass, interceptions, facts))
  const divert = [...diverted].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, each]) => each)
  const families = [...new Set(divert.map(({ family }) => family))]
  const backend = options.backend ?? (config.rules.backend === 'iptables' ? 'iptables' : 'nft')
  const isLocal = (family: Family) =>
    interceptions.some((one) => one.family === family && one.path === 'local' && isUntouched(one))
  return {
    rules: config.rules,
    backend,
    interceptions,
    forwards: config.forwards,
    bypass: interceptions.length === 0 ? [] : config.bypass,
    ...scriptsFor(backend, config, interceptions, divert),
    ipRules: families.flatMap((family) => ipRulesFor(family, config.rules, { local: isLocal(family) })),
    routes: families.map((family) => ({ family, table: config.rules.routeTable })),
    workers: config.workers,
    sysctls: neededSysctls(interceptions, config.workers, (key) => facts.sysctls.get(key)),
    knows: [
      ...config.listeners.flatMap((listener) => predictKnows(listener, ownAddresses(facts))),
      ...config.forwards.map(predictForward),
    ],
    notes: [
      ...new Set([
        ...notes,
        ...(backend === 'iptables'
          ? [...ebtablesNotes(interceptions, config.bypass), ...iptablesNotes(interceptions)]
          : []),
      ]),
    ],
  }
}

function scriptsFor(
  backend: BackendName,
  { rules, forwards, bypass }: Config,
  interceptions: readonly Interception[],
  divert: readonly Diverted[],
): Pick<Plan, 'main' | 'guard'> {
  if (interceptions.length === 0 && forwards.length === 0 && divert.length === 0) return { main: [], guard: [] }
  // what is bypassed from the start passes a guard by also while Limpid is down, and never leaves a bridge
  const others = bypass.length === 0 ? interceptions : interceptions.map((one) => withoutDestinations(one, bypass))
  if (backend === 'nft') {
    // a prefix may hold an address of this host, and what comes here is not bypassed; marks tell what is while Limpid runs
    const guarded = others.map((one, i) => (one.listener.addressedHere ? interceptions[i]! : one))
    return {
      main: nftScripts({ rules, interceptions, forwards, divert, bypass }),
      guard: guardScripts(rules, guarded, { forwards: forwards.length > 0 }),
    }
  }
  return {
    main: [...iptablesScripts({ rules, interceptions, forwards, divert, bypass }), ...ebtablesScripts(rules, others)],
    guard: [
      ...iptablesGuards({ rules, interceptions: others, forwards: forwards.length > 0 }),
      ...ebtablesGuards(rules, others),
    ],
  }
}

const FORWARDING = { 4: 'net.ipv4.ip_forward', 6: 'net.ipv6.conf.all.forwarding' } as const

/** What goes to another host is forwarded, which a host does only when it is told to. */
function checkForwarding(forwards: readonly ForwardConfig[], { sysctls }: HostFacts): void {
  for (const { name, to } of forwards) {
    const key = FORWARDING[familyOf(to.address)]
    if (sysctls.get(key) !== '0') continue
    throw new LimpidError('LIMPID_FORWARDING', `forward ${name}: this host does not forward packets (${key} is 0)`, {
      cure: `sysctl -w ${key}=1`,
    })
  }
}

/** What is bypassed is forwarded, too; a host that does not forward drops it. */
function bypassNotes(
  bypass: readonly Prefix[],
  interceptions: readonly Interception[],
  { sysctls }: HostFacts,
): string[] {
  return ([4, 6] as const).flatMap((family) => {
    const first = bypass.find((prefix) => prefix.family === family)
    const forwarded = interceptions.some((one) => one.family === family && one.path === 'forwarded')
    if (first === undefined || !forwarded || sysctls.get(forwardingKey(family)) !== '0') return []
    return [bypassDropped(first)]
  })
}

/** `net.ipv4.ip_forward`: the sysctl by which a host forwards packets of a family. */
export function forwardingKey(family: Family): string {
  return FORWARDING[family]
}

/** What is said of a bypassed prefix where the host does not forward its family. */
export function bypassDropped(prefix: Prefix): string {
  const key = forwardingKey(prefix.family)
  return `bypass ${formatPrefix(prefix)}: this host does not forward IPv${prefix.family} (${key} is 0): what is bypassed is dropped; sysctl -w ${key}=1`
}

/** What a bridge must have for what is asked of it. */
function bridgeNotes(taken: readonly Interception[], facts: HostFacts): string[] {
  return taken.flatMap(({ listener, family, path, bridges }) => {
    if (path !== 'bridged') return []
    if (bridges.length === 0)
      return [`listener ${listener.name}: there is no bridge with ports that it could take from`]
    if (listener.intercept !== 'redirect') return []
    const bare = bridges.filter(({ name }) => {
      const addresses = facts.interfaces.find((known) => known.name === name)?.addresses ?? []
      return !addresses.some((address) => familyOf(address) === family && !address.startsWith('fe80:'))
    })
    return bare.map(
      ({ name }) =>
        `listener ${listener.name}: the bridge ${name} has no IPv${family} address, to which redirect could send packets`,
    )
  })
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
