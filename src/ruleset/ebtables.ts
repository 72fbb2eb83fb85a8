import type { RulesConfig } from '../config/types.ts'
import type { Interception } from './interception.ts'
import { EBTABLES, matchStages, type StageOptions } from './iptables-match.ts'
import { ChainBook, chainPrefix, type Table } from './iptables-text.ts'
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
    book.jump('nat', 'PREROUTING', '', 'prerouting')
    const up = `-j ${book.chain('up')}`
    layFrames(book, 'nat', 'prerouting', interception, up, {})
    if (interception.listener.source === 'proxy') continue
    layFrames(book, 'nat', 'prerouting', interception, up, { answers: true })
  }
  if (!book.isEmpty) {
    // by it the rules of iptables know what was brought up; others that the bridge receives are no listener's
    book.add('nat', 'up', `-j mark --mark-or ${hex(localMark(rules))} --mark-target CONTINUE`)
    book.add('nat', 'up', '-j redirect')
  }
  return book.isEmpty ? [] : [book.script('Brings frames of intercepted TCP flows up from bridges.')]
}

/** The chain of ebtables that drops the frames that `closed` listeners should have taken, also while Limpid is down. */
export function ebtablesGuards(rules: RulesConfig, interceptions: readonly Interception[]): Script[] {
  const book = new ChainBook('ebtables-restore', `${chainPrefix(rules.nftTable)}-guard`)
  for (const interception of bridged(interceptions)) {
    if (interception.listener.onDown !== 'closed') continue
    book.jump('filter', 'FORWARD', '', 'forward')
    layFrames(book, 'filter', 'forward', interception, '-j DROP', {})
  }
  return book.isEmpty
    ? []
    : [book.script('Drops frames that closed listeners did not take, also while Limpid is down.')]
}

/** What the operator should know about them. */
export function ebtablesNotes(interceptions: readonly Interception[]): string[] {
  const foreign = bridged(interceptions).filter(({ listener }) => listener.source !== 'proxy')
  return [...new Set(foreign.map(({ listener }) => listener.name))].map(
    (name) =>
      `listener ${name}: ebtables cannot tell one flow from another: frames from the servers' ports are all brought up, and those of flows that are not ours are routed, which takes net.ipv4.ip_forward=1 (backend nft leaves them on the bridge)`,
  )
}

function bridged(interceptions: readonly Interception[]): Interception[] {
  return interceptions.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
}

function layFrames(
  book: ChainBook,
  table: Table,
  from: string,
  { listener, family, bridges }: Interception,
  final: string,
  { answers = false }: { readonly answers?: boolean },
): void {
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
  const protocol = family === 4 ? '-p IPv4 --ip-proto tcp' : '-p IPv6 --ip6-proto tcp'
  book.ladder(table, from, { protocol, final }, stages)
}
