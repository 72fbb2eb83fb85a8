import type { Family } from '../net/address.ts'
import { type Interception, mayTakeAnswers } from './interception.ts'
import { datagramTuple, flowSet } from './nft-text.ts'

const TIMEOUT = '120s' // the least that RFC 4787 §4.3 (REQ-5) allows a NAT; each datagram, either way, begins it anew
const SIZE = 65_536 // of flows beyond it the answers may be taken

/**
 * Flows of datagrams that no listener took, by the addresses and ports of their answers, in sets of one nft table. Nothing in a
 * datagram says whether it begins a flow or answers: a listener for many ports would take the answers to flows that are
 * excluded, or that began on its other side. Where no listener has such ports there are no sets, and no lines.
 *
 * What a server still sends after the end of a session must not look like a flow that it began: the client would pass by from
 * then on. So flows are noted, too, that are taken by a listener whose dials have the client's own port.
 */
export interface PassedFlows {
  /** Definitions of the sets. */
  readonly sets: readonly string[]
  /** Rules that let answers to those flows by, to stand before the listeners. */
  readonly letBy: readonly string[]
  /** The same for what a server still sends when a session is over. */
  readonly letLateBy: readonly string[]
  /** Rules that note the flow of a datagram that nobody took. */
  readonly note: readonly string[]
  /** The same where a condition holds. */
  noteWhere(condition: string): readonly string[]
  /** What stands in the rule that takes a datagram; ends with a space, unless it is empty. */
  noteTaken(one: Interception): string
  /** Rules that do the same in a table that only sees a condition for what was taken, which answers fulfil, too. */
  noteAllTaken(condition: string): readonly string[]
}

/** `interceptions`: those that datagrams are judged by in this table. */
export function passedFlows(interceptions: readonly Interception[]): PassedFlows {
  const open = interceptions.filter(mayTakeAnswers)
  const families = familiesOf(open)
  const takenFamilies = familiesOf(open.filter(lendsPort))
  const letLateBy = withHeading(
    '# late answers to what was taken',
    takenFamilies.map((family) => letBy(`taken${family}`, datagramTuple(family, 'answered'))),
  )
  return {
    sets: [
      ...families.flatMap((family) => flowSet(`passed${family}`, family, TIMEOUT, SIZE)),
      ...takenFamilies.flatMap((family) => flowSet(`taken${family}`, family, TIMEOUT, SIZE)),
    ],
    letBy: withHeading(
      '# answers to what passed by',
      families.map((family) => letBy(`passed${family}`, datagramTuple(family))),
    ),
    letLateBy,
    note: withHeading('# what passes by: its answers shall, too', families.map(notePassing)),
    noteWhere: (condition) => families.map((family) => `${condition} ${notePassing(family)}`),
    noteTaken: (one) => (lendsPort(one) && takenFamilies.includes(one.family) ? `${noteTaken(one.family)} ` : ''),
    noteAllTaken: (condition) => [...letLateBy, ...takenFamilies.map((family) => `${condition} ${noteTaken(family)}`)],
  }
}

function notePassing(family: Family): string {
  return `update @passed${family} { ${datagramTuple(family, 'answered')} }`
}

/** Notes a datagram's flow as one that was taken. */
function noteTaken(family: Family): string {
  return `update @taken${family} { ${datagramTuple(family)} }`
}

function letBy(set: string, tuple: string): string {
  return `${tuple} @${set} update @${set} { ${tuple} } return`
}

/** A server's answers to its dials look like its answers to the client. On the path `local` the client itself has the port. */
function lendsPort({ listener, path }: Interception): boolean {
  return listener.source === 'client-port' && path !== 'local'
}

function familiesOf(interceptions: readonly Interception[]): Family[] {
  return [...new Set(interceptions.map(({ family }) => family))].sort()
}

function withHeading(heading: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [heading, ...lines]
}
