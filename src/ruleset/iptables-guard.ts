import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { type Interception, isUntouched } from './interception.ts'
import { ADDRESSED_HERE, FORWARDED, LOCAL, layRules, neverIntercepted, programOf, SYN } from './iptables-listeners.ts'
import type { StageOptions } from './iptables-match.ts'
import { ChainBook, chainPrefix, type Table } from './iptables-text.ts'
import { answersPassed, notePassed, ownPackets, takesAnswers } from './iptables-udp.ts'
import type { Script } from './script.ts'

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
    for (const protocol of ['tcp', 'udp'] as const) {
      const ofProtocol = closed.filter((one) => one.protocol === protocol)
      const received = ofProtocol.filter(({ path }) => path === 'forwarded') // of what crosses a bridge ebtables drops
      const here = received.filter(({ listener }) => listener.addressedHere)
      const local = ofProtocol.filter(({ path }) => path === 'local')
      const name = protocol === 'tcp' ? '' : 'udp'
      guardChain(book, rules, family, {
        ...{ table: 'mangle', builtIn: 'FORWARD', suffix: `${name}forward`, options: FORWARDED },
        first: forwards ? '-m conntrack --ctstate DNAT -j RETURN' : undefined,
        interceptions: received,
        notesFor: received,
      })
      guardChain(book, rules, family, {
        ...{ table: 'mangle', builtIn: 'INPUT', suffix: `${name}input`, options: FORWARDED },
        first: '-i lo -j RETURN',
        interceptions: here,
        notesFor: local,
      })
      guardChain(book, rules, family, {
        ...{ table: 'filter', builtIn: 'OUTPUT', suffix: `${name}output`, options: LOCAL },
        first: `${ADDRESSED_HERE} -j RETURN`,
        interceptions: local,
        notesFor: here,
      })
    }
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
  /** Those that could drop the answers of what passes here: with UDP it is noted for them. */
  readonly notesFor: readonly Interception[]
}

function guardChain(book: ChainBook, rules: RulesConfig, family: Family, guard: GuardChain): void {
  const { table, builtIn, suffix, options, first, interceptions } = guard
  const notes = guard.notesFor.some(takesAnswers)
  if (interceptions.length === 0 && !notes) return
  const isUdp = [...interceptions, ...guard.notesFor].some(({ protocol }) => protocol === 'udp')
  book.jump(table, builtIn, isUdp ? '-p udp' : SYN, suffix) // no connection comes to be without its SYN
  if (first !== undefined) book.add(table, suffix, first)
  ownPackets(book, table, suffix, rules, notes && builtIn === 'OUTPUT')
  if (interceptions.some(takesAnswers)) book.add(table, suffix, answersPassed(rules), '-j RETURN')
  if (interceptions.length > 0) neverIntercepted(book, table, suffix, family)
  for (const interception of interceptions) {
    const { protocol } = interception
    // what another host's address was rewritten to is on its way to INPUT; elsewhere it must be told by its state
    const rewritten = !suffix.endsWith('forward') && !isUntouched(interception)
    const drop = rewritten ? `${NOT_REWRITTEN} -j DROP` : '-j DROP'
    layRules(book, table, suffix, interception, options, `-p ${protocol}`, drop)
  }
  if (notes) notePassed(book, table, suffix, rules)
}
