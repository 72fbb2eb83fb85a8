import type { ForwardConfig, Protocol } from '../config/types.ts'
import { endpointText, type Family, formatEndpoint } from '../net/address.ts'
import { formatPortRange } from '../net/ports.ts'
import { type Interception, isUntouched } from '../ruleset/interception.ts'
import { chainPrefix } from '../ruleset/iptables-text.ts'
import { commentText } from '../ruleset/nft-text.ts'
import type { Plan } from '../ruleset/plan.ts'

/** Where a rule of ours stands. */
export interface Place {
  /** `nft inet limpid`, `iptables mangle`. */
  readonly where: string
  readonly chain: string
}

/** The comment by which a rule, of either backend, is known: `listener web`, `forward dns`. */
export function ruleName(what: 'listener' | 'forward', name: string): string {
  return `${what} ${commentText(name)}`
}

/** The chain in which a listener takes the beginnings of flows, or each datagram. */
export function takingPlace(plan: Plan, interception: Interception): Place {
  const { path, family, protocol } = interception
  const hook = path === 'local' ? 'output' : 'prerouting'
  const table = isUntouched(interception) ? 'mangle' : 'nat'
  const place = placeOf(plan, hook, table, family)
  if (protocol === 'tcp') return place
  if (plan.backend === 'iptables') return { ...place, chain: `${chainPrefix(plan.rules.nftTable)}-${UDP_CHAINS[hook]}` }
  return table === 'nat' ? place : { ...place, chain: path === 'local' ? 'sent-datagrams' : 'datagrams' }
}

const UDP_CHAINS = { prerouting: 'udp', output: 'udpoutput' } as const // of iptables

export function forwardPlace(plan: Plan, family: Family): Place {
  return placeOf(plan, 'prerouting', 'nat', family)
}

/** The chain that brings frames up from a bridge. */
export function bridgePlace({ backend, rules }: Plan, protocol: Protocol): Place {
  if (backend === 'nft') {
    return { where: `nft bridge ${rules.nftTable}`, chain: protocol === 'udp' ? 'datagrams' : 'prerouting' }
  }
  return { where: 'ebtables nat', chain: `${chainPrefix(rules.nftTable)}-prerouting` }
}

/** Where a `closed` listener's flows are dropped while Limpid is down. */
export function guardPlace(plan: Plan, { path, family, listener, protocol }: Interception): Place {
  const { backend, rules } = plan
  if (backend === 'nft' && protocol === 'udp') {
    const where = `nft ${path === 'bridged' ? 'bridge' : 'inet'} ${rules.nftTable}-guard`
    return { where, chain: path === 'local' ? 'sent-datagrams' : 'datagrams' }
  }
  if (backend === 'nft') {
    if (path === 'bridged') return { where: `nft bridge ${rules.nftTable}-guard`, chain: 'forward' }
    return { where: `nft inet ${rules.nftTable}-guard`, chain: path === 'local' ? 'output' : 'prerouting' }
  }
  const guard = `${chainPrefix(rules.nftTable)}-guard`
  if (path === 'bridged') return { where: 'ebtables filter', chain: `${guard}-forward` }
  const name = `${guard}-${protocol === 'udp' ? 'udp' : ''}`
  if (path === 'local') return { where: `${programOf(family)} filter`, chain: `${name}output` }
  return { where: `${programOf(family)} mangle`, chain: `${name}${listener.addressedHere ? 'input' : 'forward'}` }
}

/** Where what is sent to a listener itself is refused. */
export function inputPlace(plan: Plan, { family, protocol }: Pick<Interception, 'family' | 'protocol'>): Place {
  const { backend, rules } = plan
  if (backend === 'nft') return { where: `nft inet ${rules.nftTable}`, chain: 'input' }
  return {
    where: `${programOf(family)} filter`,
    chain: `${chainPrefix(rules.nftTable)}-${protocol === 'udp' ? 'udp' : ''}input`,
  }
}

function placeOf({ backend, rules }: Plan, hook: string, table: 'mangle' | 'nat', family: Family): Place {
  if (backend === 'nft') {
    return { where: `nft inet ${rules.nftTable}`, chain: table === 'nat' ? `nat-${hook}` : hook }
  }
  return { where: `${programOf(family)} ${table}`, chain: `${chainPrefix(rules.nftTable)}-${hook}` }
}

function programOf(family: Family): string {
  return family === 4 ? 'iptables' : 'ip6tables'
}

/** What the listener's rule does with the packet. */
export function takingVerdict({ listener, to, toPorts, path }: Interception): string {
  switch (listener.intercept) {
    case 'redirect':
      return `redirect to :${formatPortRange(toPorts)}${toPorts.from === toPorts.to ? '' : ' random'}`
    case 'dnat':
      return `dnat to ${formatEndpoint(to)}`
    case 'tproxy':
      return path === 'local' ? `marked, then tproxy to ${formatEndpoint(to)}` : `tproxy to ${formatEndpoint(to)}`
    default:
      return 'marked'
  }
}

/** As `listen` has it: port 0 keeps the packet's own. */
export function forwardVerdict({ to }: ForwardConfig): string {
  return `dnat to ${endpointText(to)}`
}

/** The planned rules with that comment in that chain, of one family, as their program takes them. */
export function plannedRules(plan: Plan, { chain }: Place, name: string, family: Family): string[] {
  const lines = plan.main
    .filter(({ program }) => program === 'nft' || (family === 4) === (program === 'iptables-restore'))
    .flatMap(({ program, text }) => (program === 'nft' ? linesOfChain(text, chain) : text.split('\n')))
  const ofFamily = family === 4 ? /\bip [sd]addr|ipv4|dnat ip / : /\bip6 [sd]addr|ipv6|dnat ip6 /
  return lines
    .map((line) => line.trim())
    .filter((line) => line.includes(`comment "${name}"`))
    .filter((line) => (line.startsWith('-A') ? line.startsWith(`-A ${chain} `) : ofFamily.test(line)))
}

function linesOfChain(text: string, chain: string): string[] {
  return text
    .split(`\tchain ${chain} {\n`)
    .slice(1)
    .flatMap((rest) => rest.split('\n\t}')[0]!.split('\n'))
}
