import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { isAllPorts } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import { type Interception, isUntouched } from './interception.ts'
import {
  ADDRESSED_HERE,
  commentOf,
  FORWARDED,
  isRouted,
  LOCAL,
  labelOf,
  layBypass,
  layListeners,
  markIs,
  markIsNot,
  noteLabel,
  setConnmark,
  setMark,
  toListener,
  tproxyTo,
} from './iptables-listeners.ts'
import type { ChainBook, Table } from './iptables-text.ts'
import { hex, localMark } from './policy-routing.ts'

const FIRST_CLIENT_PORT = 1_024 // from here on clients have their ports (RFC 6335 §6), and answers go to them

/**
 * Whether a UDP listener's conditions could fit the answers of flows that it did not take: with TCP a SYN tells a question from
 * an answer, here the ports must.
 */
export function takesAnswers({ protocol, listener: { match } }: Interception): boolean {
  if (protocol !== 'udp') return false
  return match.ports.length === 0 || isAllPorts(match.ports) || match.ports.some(({ to }) => to >= FIRST_CLIENT_PORT)
}

/**
 * UDP's way through the table mangle: every packet is looked at, by the same conditions.
 *
 * TPROXY finds a connected socket before it gives a packet to its listener, so an answer to a socket of ours may come to a
 * listener's rule. What no listener takes is then asked for its socket: `-m socket` finds connected and unconnected ones, and
 * which it found only the socket's mark tells, which --restore-skmark copies (net/netfilter/xt_socket.c). It does so over the
 * whole mark of the packet, and no other match sees a socket: so it stands last, where few packets come. Others' bits of the mark
 * are lost on answers that come to our sockets, and on what an excluded client sends to a server while a socket of ours lends that
 * server's address and port to answer another client; what listeners take and what otherwise passes by keeps them.
 *
 * Where listeners' ports may be clients' ports, answers of flows that passed by would be taken. The first packet of a flow
 * that passes leaves a mark on its connection (bypassMark: "passed"), and what comes back on it is not offered to listeners. The
 * direction alone does not tell: after a silence longer than conntrack's memory, our own answer begins a connection anew.
 *
 * `interceptions`: of tproxy and mark listeners, for one family.
 */
export function udpPrerouting(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
  bypass: readonly Prefix[],
): void {
  const add = (...rule: string[]) => book.add('mangle', 'udp', ...rule)
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  const notes = interceptions.some(takesAnswers)
  const pass = notes ? `-g ${book.chain('udppassed')}` : '-j RETURN'
  book.jump('mangle', 'PREROUTING', '-p udp', 'udp')
  if (local.length > 0) {
    add('-i lo', markIs(rules, localMark(rules)), `-g ${book.chain('udpback')}`)
    for (const [i, interception] of local.entries()) {
      const { listener } = interception
      if (listener.intercept !== 'tproxy') continue
      const to = tproxyTo(interception, localMark(rules), rules)
      book.add('mangle', 'udpback', '-p udp', labelOf(local, i), commentOf(listener), to)
    }
    book.add('mangle', 'udpback', '-j ACCEPT')
  }
  add('-i lo -j RETURN')
  add(markIs(rules, rules.bypassMark), '-j RETURN')
  if (notes) add(answersPassed(rules), `-g ${book.chain('udpdivert')}`)
  if (received.length > 0) {
    if (received.some(isRouted)) layBypass(book, 'mangle', 'udp', 'udp', bypass, pass)
    const chain = { table: 'mangle', suffix: 'udp', family, options: FORWARDED, addressedHere: pass } as const
    layListeners(book, chain, rules, received, (one) => toListener(book, rules, one))
  }
  // no answer to a foreign address of ours; a listener of ours, dialled itself, is not to look intercepted
  if (received.every(({ listener }) => listener.addressedHere)) add(ADDRESSED_HERE, pass)
  add(`-g ${book.chain('udpdivert')}`)
  book.add('mangle', 'udpdivert', '-m socket --transparent --restore-skmark', `-g ${book.chain('udpfound')}`)
  book.add('mangle', 'udpfound', markIs(rules, rules.bypassMark), `-g ${book.chain('take')}`)
  book.add('mangle', 'udpfound', setMark(rules, 0))
  if (!notes) return
  book.add('mangle', 'udpdivert', pass)
  book.add('mangle', 'udpfound', pass)
  notePassed(book, 'mangle', 'udppassed', rules)
}

/**
 * Marks what this host's processes send to where a tproxy or mark listener takes it, and notes what passes by a listener that
 * takes what is addressed to this host.
 * @returns whether something is marked.
 */
export function udpOutput(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
  bypass: readonly Prefix[],
): boolean {
  const add = (...rule: string[]) => book.add('mangle', 'udpoutput', ...rule)
  const local = interceptions.filter(({ path }) => path === 'local')
  const notes = interceptions.some((one) => takesAnswers(one) && one.path !== 'local' && one.listener.addressedHere)
  if (local.length === 0 && !notes) return false
  book.jump('mangle', 'OUTPUT', '-p udp', 'udpoutput')
  ownPackets(book, 'mangle', 'udpoutput', rules, notes)
  if (local.length > 0) {
    add(ADDRESSED_HERE, '-j RETURN')
    if (local.some(takesAnswers)) add(answersPassed(rules), '-j RETURN')
    layBypass(book, 'mangle', 'udpoutput', 'udp', bypass, notes ? `-g ${book.chain('udppassed')}` : '-j RETURN')
    const chain = { table: 'mangle', suffix: 'udpoutput', family, options: LOCAL, addressedHere: undefined } as const
    layListeners(book, chain, rules, local, (one) => noteLabel(local, one, `-g ${book.chain('again')}`))
  }
  if (notes) notePassed(book, 'mangle', 'udpoutput', rules)
  return local.length > 0
}

/** Of what this host sends. Where flows are noted our own dials are, too, but not our answers: those begin nothing. */
export function ownPackets(book: ChainBook, table: Table, suffix: string, rules: RulesConfig, notes: boolean): void {
  if (notes) {
    book.add(table, suffix, markIs(rules, rules.interceptMark), '-j RETURN')
    notePassed(book, table, suffix, rules, markIsNot(rules, 0))
  }
  book.add(table, suffix, markIsNot(rules, 0), '-j RETURN')
}

/** Packets that answer a flow whose first packet passed by. */
export function answersPassed(rules: RulesConfig): string {
  return `-m conntrack --ctdir REPLY -m connmark --mark ${hex(rules.bypassMark)}/${hex(rules.markMask)}`
}

/** Notes the flow of what passes by; the rule ends nothing. */
export function notePassed(book: ChainBook, table: Table, suffix: string, rules: RulesConfig, which = ''): void {
  book.add(table, suffix, which, '-m conntrack --ctdir ORIGINAL', setConnmark(rules, rules.bypassMark))
}

/** What the operator should know about UDP's chains. */
export function udpNotes(interceptions: readonly Interception[]): string[] {
  const ofPorts = interceptions.filter((one) => takesAnswers(one) && isUntouched(one))
  return ofPorts.map(
    ({ listener: { name } }) =>
      `listener ${name}: its UDP ports may be those of clients: iptables needs conntrack to tell answers from questions; where that is off (NOTRACK), name ports below ${FIRST_CLIENT_PORT} or take the backend nft`,
  )
}
