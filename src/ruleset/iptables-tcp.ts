import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Interception } from './interception.ts'
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
  NOT_SYN,
  noteLabel,
  SYN,
  setConnmark,
  toListener,
  tproxyTo,
} from './iptables-listeners.ts'
import type { ChainBook } from './iptables-text.ts'
import { hex, localMark } from './policy-routing.ts'

const RECEIVED = { table: 'mangle', suffix: 'prerouting', options: FORWARDED, addressedHere: '-j RETURN' } as const
const SENT = { table: 'mangle', suffix: 'output', options: LOCAL, addressedHere: undefined } as const

/**
 * Diverts to sockets, gives new connections to tproxy listeners, and marks those of mark listeners: a flow is taken by its SYN, and its other packets by the socket that came of it. On the
 * path `local` the kernel asks nobody for a socket: there a connection's connmark tells. Nothing here knows a flow between SYN
 * cookie and last packet of its handshake; conntrack would, but these chains do not bring it to a host that goes without.
 *
 * `interceptions`: of tproxy and mark listeners, for one family.
 */
export function tcpPrerouting(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
  bypass: readonly Prefix[],
): void {
  const add = (...rule: string[]) => book.add('mangle', 'prerouting', ...rule)
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  book.jump('mangle', 'PREROUTING', '-p tcp', 'prerouting')
  if (local.length > 0) {
    add('-i lo', markIs(rules, localMark(rules)), `-g ${book.chain('back')}`)
    for (const [i, interception] of local.entries()) {
      if (interception.listener.intercept !== 'tproxy') continue
      const { listener } = interception
      const label = labelOf(local, i)
      book.add('mangle', 'back', SYN, label, commentOf(listener), tproxyTo(interception, localMark(rules), rules))
    }
    book.add('mangle', 'back', '-j ACCEPT')
  }
  add('-i lo -j RETURN')
  add(markIs(rules, rules.bypassMark), '-j RETURN')
  add(NOT_SYN, '-m socket --transparent', `-g ${book.chain('take')}`)
  add(NOT_SYN, '-j RETURN')
  if (received.length > 0) {
    if (received.some(isRouted)) layBypass(book, 'mangle', 'prerouting', 'tcp', bypass)
    layListeners(book, { ...RECEIVED, family }, rules, received, (one) => toListener(book, rules, one))
  }
  add('-m socket --transparent', `-g ${book.chain('take')}`)
}

/**
 * Marks what this host's processes send to where a tproxy or mark listener takes it: it is routed to lo and comes in again.
 * @returns whether there is such a listener.
 */
export function tcpOutput(
  book: ChainBook,
  rules: RulesConfig,
  family: Family,
  interceptions: readonly Interception[],
  bypass: readonly Prefix[],
): boolean {
  const local = interceptions.filter(({ path }) => path === 'local')
  if (local.length === 0) return false
  const mark = `${hex(localMark(rules))}/${hex(rules.markMask)}`
  const add = (...rule: string[]) => book.add('mangle', 'output', ...rule)
  book.jump('mangle', 'OUTPUT', '-p tcp', 'output')
  add(markIsNot(rules, 0), '-j RETURN')
  add(ADDRESSED_HERE, '-j RETURN')
  add(NOT_SYN, `-m connmark --mark ${mark}`, `-g ${book.chain('again')}`)
  add(NOT_SYN, '-j RETURN')
  layBypass(book, 'mangle', 'output', 'tcp', bypass)
  layListeners(book, { ...SENT, family }, rules, local, (one) => noteLabel(local, one, `-g ${book.chain('begin')}`))
  book.add('mangle', 'begin', setConnmark(rules, localMark(rules)))
  book.add('mangle', 'begin', `-g ${book.chain('again')}`)
  return true
}
