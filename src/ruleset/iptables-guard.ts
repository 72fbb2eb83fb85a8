import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { type Interception, isUntouched } from './interception.ts'
import { layRules, markIsNot, neverIntercepted, programOf, SYN } from './iptables.ts'
import { IPTABLES, type StageOptions } from './iptables-match.ts'
import { ChainBook, chainPrefix, type Table } from './iptables-text.ts'
import type { Script } from './script.ts'

const FORWARDED: StageOptions = { dialect: IPTABLES, interfaces: 'input' }
const LOCAL: StageOptions = { dialect: IPTABLES, interfaces: 'output', processes: true }
const NOT_REWRITTEN = '-m conntrack ! --ctstate DNAT'

export interface GuardInput {
  readonly rules: RulesConfig
  readonly interceptions: readonly Interception[]
  /** Whether the kernel passes on ports for us: such packets look like what a listener should have taken. */
  readonly forwards: boolean
}

/**
 * The chains of iptables and ip6tables that drop what `closed` listeners should have taken but did not, also while Limpid
 * is down. They stand where a packet that was taken does not come by: on the way to another host, or, for what is addressed
 * to this one and for what it sends itself, where our mark or its rewritten destination tells.
 */
export function iptablesGuards({ rules, interceptions, forwards }: GuardInput): Script[] {
  return ([4, 6] as const).flatMap((family) => {
    const closed = interceptions.filter(
      (interception) => interception.family === family && interception.listener.onDown === 'closed',
    )
    const book = new ChainBook(programOf(family), `${chainPrefix(rules.nftTable)}-guard`)
    const received = closed.filter(({ path }) => path === 'forwarded') // of what crosses a bridge ebtables drops
    guardChain(book, rules, family, {
      ...{ table: 'mangle', builtIn: 'FORWARD', suffix: 'forward', options: FORWARDED },
      first: forwards ? '-m conntrack --ctstate DNAT -j RETURN' : undefined,
      interceptions: received,
    })
    guardChain(book, rules, family, {
      ...{ table: 'mangle', builtIn: 'INPUT', suffix: 'input', options: FORWARDED },
      first: '-i lo -j RETURN',
      interceptions: received.filter(({ listener }) => listener.addressedHere),
    })
    guardChain(book, rules, family, {
      ...{ table: 'filter', builtIn: 'OUTPUT', suffix: 'output', options: LOCAL },
      first: '-m addrtype --dst-type LOCAL -j RETURN',
      interceptions: closed.filter(({ path }) => path === 'local'),
    })
    return book.isEmpty ? [] : [book.script('Drops what closed listeners did not take, also while Limpid is down.')]
  })
}

interface GuardChain {
  readonly table: Table
  readonly builtIn: string
  readonly suffix: string
  readonly options: StageOptions
  readonly first: string | undefined
  readonly interceptions: readonly Interception[]
}

function guardChain(book: ChainBook, rules: RulesConfig, family: Family, guard: GuardChain): void {
  const { table, builtIn, suffix, options, first, interceptions } = guard
  if (interceptions.length === 0) return
  book.jump(table, builtIn, SYN, suffix) // no flow comes to be without its SYN
  if (first !== undefined) book.add(table, suffix, first)
  book.add(table, suffix, markIsNot(rules, 0), '-j RETURN')
  neverIntercepted(book, table, suffix, family)
  for (const interception of interceptions) {
    // what another host's address was rewritten to is on its way to INPUT; elsewhere it must be told by its state
    const rewritten = suffix !== 'forward' && !isUntouched(interception)
    layRules(book, table, suffix, interception, options, '-p tcp', rewritten ? `${NOT_REWRITTEN} -j DROP` : '-j DROP')
  }
}
