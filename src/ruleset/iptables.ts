import type { ForwardConfig, Protocol, RulesConfig } from '../config/types.ts'
import { type Family, familyOf, isLoopback } from '../net/address.ts'
import { formatPortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import { type Interception, isUntouched } from './interception.ts'
import { commentOf, markIsNot, programOf, SYN, setMark } from './iptables-listeners.ts'
import { natChains } from './iptables-nat.ts'
import { tcpOutput, tcpPrerouting } from './iptables-tcp.ts'
import { ChainBook, chainPrefix } from './iptables-text.ts'
import { udpNotes, udpOutput, udpPrerouting } from './iptables-udp.ts'
import { withoutContained } from './nft-match.ts'
import { localMark } from './policy-routing.ts'
import type { Script } from './script.ts'

/** What the rules of iptables are written from. */
export interface ChainsInput {
  readonly rules: RulesConfig
  readonly interceptions: readonly Interception[]
  readonly forwards: readonly ForwardConfig[]
  /** Packets addressed to somebody else that must come to sockets of ours. */
  readonly divert: readonly { readonly family: Family; readonly protocol: Protocol }[]
  readonly bypass: readonly Prefix[]
}

/** The chains of iptables and ip6tables that bring packets to listeners. None for a family in which nothing is to be done. */
export function iptablesScripts({ rules, interceptions, forwards, divert, bypass }: ChainsInput): Script[] {
  return ([4, 6] as const).flatMap((family) => {
    const book = new ChainBook(programOf(family), chainPrefix(rules.nftTable))
    const ofFamily = interceptions.filter((interception) => interception.family === family)
    const untouched = ofFamily.filter(isUntouched)
    const rewritten = ofFamily.filter((interception) => !isUntouched(interception))
    const passedOn = forwards.filter(({ to }) => familyOf(to.address) === family)
    const diverted = divert.filter((one) => one.family === family).map(({ protocol }) => protocol)
    inputChains(book, rules, ofFamily)
    const prefixes = withoutContained(bypass.filter((prefix) => prefix.family === family))
    natChains(book, rules, family, rewritten, passedOn, prefixes)
    untouchedChains(book, rules, family, untouched, diverted, prefixes)
    return book.isEmpty ? [] : [book.script('Brings intercepted flows to their listeners.')]
  })
}

/** What the operator should know about them. */
export function iptablesNotes(interceptions: readonly Interception[]): string[] {
  return [...connmarkNotes(interceptions), ...udpNotes(interceptions)]
}

/** iptables has no sets that fill themselves: on the path `local` conntrack knows which flows were taken. */
function connmarkNotes(interceptions: readonly Interception[]): string[] {
  const local = interceptions.filter((one) => one.path === 'local' && isUntouched(one))
  // of UDP, where there is one listener alone, every packet is marked by its conditions
  const isAlone = (one: Interception) =>
    one.protocol === 'udp' && !local.some((other) => other.listener !== one.listener && other.protocol === 'udp')
  return local
    .filter((one) => !isAlone(one))
    .map(
      ({ listener: { name, intercept } }) =>
        `listener ${name}: iptables needs conntrack for ${intercept} on the path local; where that is off (NOTRACK), take the backend nft`,
    )
}

/** Of tproxy and mark listeners, for one family; with none of them packets are only diverted to transparent sockets. */
function untouchedChains(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  untouched: readonly Interception[],
  diverted: readonly Protocol[],
  bypass: readonly Prefix[],
): void {
  const tcp = untouched.filter(({ protocol }) => protocol === 'tcp')
  const udp = untouched.filter(({ protocol }) => protocol === 'udp')
  const divertsTcp = tcp.length > 0 || diverted.includes('tcp')
  const divertsUdp = udp.length > 0 || diverted.includes('udp')
  if (!divertsTcp && !divertsUdp) return
  if (divertsTcp) tcpPrerouting(book, rules, family, tcp, bypass)
  if (divertsUdp) udpPrerouting(book, rules, family, udp, bypass)
  errorsChain(book, family)
  book.add('mangle', 'take', setMark(rules, rules.interceptMark))
  book.add('mangle', 'take', '-j ACCEPT')
  const isTcpMarked = tcpOutput(book, rules, family, tcp, bypass)
  const isUdpMarked = udpOutput(book, rules, family, udp, bypass)
  if (!isTcpMarked && !isUdpMarked) return
  book.add('mangle', 'again', setMark(rules, localMark(rules)))
  book.add('mangle', 'again', '-j ACCEPT')
}

/**
 * Errors about packets that a transparent socket sent come to it, whosever address it has: else the client would learn of our
 * path's MTU, and we would not. `-m socket` asks for the socket of the packet that an error quotes, of TCP or UDP.
 */
function errorsChain(book: ChainBook, family: Family): void {
  book.jump('mangle', 'PREROUTING', family === 4 ? '-p icmp' : '-p ipv6-icmp', 'errors')
  book.add('mangle', 'errors', '-i lo -j RETURN')
  book.add('mangle', 'errors', '-m socket --transparent', `-g ${book.chain('take')}`)
}

const INPUT = {
  tcp: { suffix: 'input', beginning: SYN, reject: '-j REJECT --reject-with tcp-reset' },
  udp: { suffix: 'udpinput', beginning: '-p udp', reject: '-j REJECT' }, // port unreachable
} as const

/** A listener that others can dial must not be dialled: it would find itself as the destination. */
function inputChains(book: ChainBook, rules: RulesConfig, interceptions: readonly Interception[]): void {
  const seen = new Set<string>()
  for (const interception of interceptions) {
    const { listener, toPorts, family, protocol } = interception
    const loopback = listener.listen.every(({ address }) => isLoopback(address))
    const key = `${listener.name} ${family} ${protocol}`
    if (loopback || seen.has(key)) continue
    seen.add(key)
    const { suffix, beginning, reject } = INPUT[protocol]
    book.jump('filter', 'INPUT', beginning, suffix)
    const taken = isUntouched(interception) ? markIsNot(rules, rules.interceptMark) : '-m conntrack ! --ctstate DNAT'
    const dialled = `! -i lo -p ${protocol} --dport ${formatPortRange(toPorts).replace('-', ':')}`
    book.add('filter', suffix, dialled, taken, commentOf(listener), reject)
  }
}
