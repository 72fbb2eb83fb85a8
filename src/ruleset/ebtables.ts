import type { RulesConfig } from '../config/types.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Interception } from './interception.ts'
import { neverForwarded } from './iptables-listeners.ts'
import { EBTABLES, matchStages, type StageOptions } from './iptables-match.ts'
import { ChainBook, chainPrefix, type Table } from './iptables-text.ts'
import { takesAnswers } from './iptables-udp.ts'
import { hex, localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

/**
 * The chains of ebtables that bring frames of taken flows up from a bridge, as if they were addressed to this host.
 *
 * ebtables sees neither TCP flags nor flows (and has no table `broute` where the kernel knows nft only): all frames from client
 * to server are brought up, and, where the server answers to the client's address, all from server to client. So flows that
 * are older than the rules are routed here instead of bridged, which takes forwarding to be on.
 */
export function ebtablesScripts(rules: RulesConfig, interceptions: readonly Interception[]): Script[] {
  const book = new ChainBook('ebtables-restore', chainPrefix(rules.nftTable))
  for (const interception of bridged(interceptions)) {
    const chain = frameChain(book, 'nat', 'PREROUTING', interception)
    const up = `-j ${book.chain('up')}`
    layFrames(book, 'nat', chain, interception, up, {})
    if (interception.listener.source === 'proxy') continue
    layFrames(book, 'nat', chain, interception, up, { answers: true })
  }
  if (!book.isEmpty) {
    // by it the rules of iptables know what was brought up; others that the bridge receives are no listener's
    book.add('nat', 'up', `-j mark --mark-or ${hex(localMark(rules))} --mark-target CONTINUE`)
    book.add('nat', 'up', '-j redirect')
  }
  return book.isEmpty ? [] : [book.script('Brings frames of intercepted flows up from bridges.')]
}

/** The chain of ebtables that drops the frames that `closed` listeners should have taken, also while Limpid is down. */
export function ebtablesGuards(rules: RulesConfig, interceptions: readonly Interception[]): Script[] {
  const book = new ChainBook('ebtables-restore', `${chainPrefix(rules.nftTable)}-guard`)
  for (const interception of bridged(interceptions)) {
    if (interception.listener.onDown !== 'closed') continue
    const chain = frameChain(book, 'filter', 'FORWARD', interception)
    layFrames(book, 'filter', chain, interception, '-j DROP', {})
  }
  return book.isEmpty
    ? []
    : [book.script('Drops frames that closed listeners did not take, also while Limpid is down.')]
}

/** What the operator should know about them. */
export function ebtablesNotes(interceptions: readonly Interception[], bypass: readonly Prefix[] = []): string[] {
  const notes = bridged(interceptions).flatMap((interception) => {
    const { listener, bridges } = interception
    const routed = `listener ${listener.name}: ebtables cannot tell one flow from another: frames from the servers' ports are all brought up, and those of flows that are not ours are routed, which takes net.ipv4.ip_forward=1 (backend nft leaves them on the bridge)`
    const taken = `listener ${listener.name}: ebtables cannot tell an answer from a question: answers of UDP flows that cross the bridge untaken are taken where they come in by a port that clients have, too; name the clients' ports as interfaces (backend nft leaves them on the bridge)`
    const fromAll = bridges.some(({ ports, from }) => from.length === ports.length)
    return [...(listener.source === 'proxy' ? [] : [routed]), ...(takesAnswers(interception) && fromAll ? [taken] : [])]
  })
  const uncounted =
    bypass.length > 0 && bridged(interceptions).length > 0
      ? ['bypass: ebtables leaves it on the bridge without counting it (backend nft counts it)']
      : []
  return [...new Set(notes), ...uncounted]
}

function bridged(interceptions: readonly Interception[]): Interception[] {
  return interceptions.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
}

/**
 * The suffix of the chain where frames of an interception's protocol and family are looked at. UDP has one for each family,
 * which begins with what stays on the bridge: what reaches many hosts, and addresses that nobody may route.
 */
function frameChain(
  book: ChainBook,
  table: Table,
  builtIn: 'PREROUTING' | 'FORWARD',
  { protocol, family }: Interception,
): string {
  if (protocol === 'tcp') {
    book.jump(table, builtIn, '', builtIn.toLowerCase())
    return builtIn.toLowerCase()
  }
  const chain = `udp${family}`
  if (!book.jump(table, builtIn, protocolOf({ protocol, family }), chain)) return chain
  book.add(table, chain, '-d Multicast -j RETURN') // broadcast too
  for (const prefix of neverForwarded(family)) {
    const field = family === 4 ? '--ip-dst' : '--ip6-dst'
    book.add(table, chain, protocolOf({ protocol, family }), `${field} ${prefix}`, '-j RETURN')
  }
  return chain
}

function layFrames(
  book: ChainBook,
  table: Table,
  from: string,
  interception: Interception,
  final: string,
  { answers = false }: { readonly answers?: boolean },
): void {
  const { listener, family, bridges } = interception
  // answers come in by any other port
  const interfaces = answers ? [] : bridges.flatMap(({ from }) => from)
  const options: StageOptions = { dialect: EBTABLES, interfaces: 'input', answers }
  const stages = matchStages(
    { ...listener.match, interfaces, fwmarks: [] },
    { ...listener.exclude, interfaces: [] },
    family,
    options,
  )
  if (stages === undefined) return
  // a frame with a VLAN tag has another ethertype, and stays on the bridge
  book.ladder(table, from, { protocol: protocolOf(interception), final }, stages)
}

function protocolOf({ protocol, family }: Pick<Interception, 'protocol' | 'family'>): string {
  return family === 4 ? `-p IPv4 --ip-proto ${protocol}` : `-p IPv6 --ip6-proto ${protocol}`
}
