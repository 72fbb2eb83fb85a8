import type { RulesConfig } from '../config/types.ts'
import { type Interception, isUntouched, mayTakeAnswers } from './interception.ts'
import { guardTable } from './nft.ts'
import { bridgeGuard } from './nft-bridge.ts'
import { type Ending, listenerRules } from './nft-listeners.ts'
import { NamedSets, RECEIVED, SENT } from './nft-match.ts'
import { type PassedFlows, passedFlows } from './nft-passed.ts'
import { chain, markIs, NOT_SYN, neverIntercepted, nftScript } from './nft-text.ts'
import { hex } from './policy-routing.ts'
import type { Script } from './script.ts'

/** After NAT: what was rewritten to this host is not dropped any more. isGuard() knows a guard by this priority. */
const PRIORITY = 'dstnat + 1'

/**
 * The nft tables that drop what `closed` listeners should have taken but did not; none when all are `open`. `forwards`: the kernel
 * passes on ports for us, and such packets look like what a listener should have taken.
 */
export function guardScripts(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  { forwards }: { readonly forwards: boolean },
): Script[] {
  const closed = interceptions.filter(({ listener }) => listener.onDown === 'closed')
  if (closed.length === 0) return []
  const sets = new NamedSets()
  const received = closed.filter(({ path }) => path === 'forwarded') // of what crosses a bridge its own table drops
  const local = closed.filter(({ path }) => path === 'local')
  const connections = closed.some(({ protocol }) => protocol === 'tcp')
  const datagrams = datagramGuard(received.filter(isDatagram), local.filter(isDatagram), rules, sets)
  const chains = [
    ...chain('datagrams', undefined, datagrams.received),
    ...chain('prerouting', `filter hook prerouting priority ${PRIORITY}`, [
      'iifname "lo" return',
      ...rewritten(received, forwards),
      ...datagrams.taken,
      ...datagrams.bypassed,
      `${markIs(rules, '!=', 0)} return`,
      '',
      ...(datagrams.received.length === 0 ? [] : ['meta l4proto udp goto datagrams', '']),
      ...(connections
        ? [...newFlows(), ...listenerRules(received.filter(isConnection), sets, RECEIVED, dropReceived)]
        : []),
    ]),
    ...chain('sent-datagrams', undefined, datagrams.sent),
    ...chain(
      'output',
      'filter hook output priority filter',
      local.length === 0 && datagrams.sent.length === 0
        ? []
        : [
            ...rewritten(local, false),
            `${markIs(rules, '!=', 0)} return`,
            '',
            ...(datagrams.sent.length === 0 ? [] : ['meta l4proto udp goto sent-datagrams', '']),
            ...(local.some(isConnection)
              ? [
                  ...newFlows(),
                  'fib daddr type local return',
                  ...listenerRules(local.filter(isConnection), sets, SENT, drop),
                ]
              : []),
          ],
    ),
  ]
  const inet = nftScript(
    'inet',
    guardTable(rules),
    'Drops what closed listeners did not take, also while Limpid is down.',
    [...sets.lines(), ...datagrams.sets, ...chains],
  )
  const bridge = bridgeGuard(rules, guardTable(rules), closed)
  return bridge === undefined ? [inet] : [inet, bridge]
}

interface DatagramGuard {
  readonly sets: readonly string[]
  /** Rules that note what was taken. */
  readonly taken: readonly string[]
  /** Rules that note what the main table let by as bypassed: its answers have no mark. */
  readonly bypassed: readonly string[]
  readonly received: readonly string[]
  readonly sent: readonly string[]
}

/** No datagram says that it begins a flow: each one is dropped that a listener should have taken. Interceptions of UDP. */
function datagramGuard(
  received: readonly Interception[],
  local: readonly Interception[],
  rules: RulesConfig,
  sets: NamedSets,
): DatagramGuard {
  // of what is rewritten conntrack knows the direction
  const passed = passedFlows([...received, ...local].filter(isUntouched))
  const passes = received.some((one) => isUntouched(one) && mayTakeAnswers(one))
  const passesHere = local.some((one) => isUntouched(one) && mayTakeAnswers(one))
  const asksHere = received.some((one) => isUntouched(one) && mayTakeAnswers(one) && one.listener.addressedHere)
  return {
    sets: passed.sets,
    taken: passed.noteAllTaken(markIs(rules, '==', rules.interceptMark)),
    bypassed: passes ? passed.noteWhere(`meta l4proto udp ${markIs(rules, '==', rules.bypassMark)}`) : [],
    received: [
      ...answered(received),
      ...(asksHere
        ? [
            '# answers to sockets of Limpid',
            `fib daddr type local socket mark & ${hex(rules.markMask)} == ${hex(rules.bypassMark)} return`,
          ]
        : []),
      ...(passes ? passed.letBy : []),
      ...(received.length === 0
        ? []
        : ['', ...neverIntercepted(), ...listenerRules(received, sets, RECEIVED, dropReceived)]),
      ...notes(passed, passes ? [] : passesHere ? ['fib daddr type != local return'] : undefined),
    ],
    sent: [
      ...answered(local),
      ...(passesHere ? passed.letBy : []),
      ...(local.length === 0
        ? []
        : ['', ...neverIntercepted(), 'fib daddr type local return', ...listenerRules(local, sets, SENT, drop)]),
      ...notes(passed, asksHere ? [] : undefined),
    ],
  }
}

/** `before`: rules in front of them; undefined when nothing is to be noted. */
function notes({ note }: PassedFlows, before: readonly string[] | undefined): string[] {
  return before === undefined ? [] : ['', ...before, ...note]
}

function answered(interceptions: readonly Interception[]): string[] {
  return interceptions.some((one) => !isUntouched(one)) ? ['ct direction reply return', ''] : []
}

function isConnection({ protocol }: Interception): boolean {
  return protocol === 'tcp'
}

function isDatagram({ protocol }: Interception): boolean {
  return protocol === 'udp'
}

function newFlows(): string[] {
  return [
    '# no flow comes to be without its SYN',
    'meta l4proto != tcp return',
    `${NOT_SYN} return`,
    '',
    ...neverIntercepted(),
  ]
}

const drop: Ending = () => 'counter drop'

const dropReceived: Ending = ({ listener }) =>
  listener.addressedHere ? 'counter drop' : 'fib daddr type != local counter drop'

/** What was rewritten was taken, or forwarded. What conntrack does not know was not: the rule does not match it. */
function rewritten(interceptions: readonly Interception[], forwards: boolean): string[] {
  return forwards || interceptions.some((one) => !isUntouched(one)) ? ['ct status dnat return'] : []
}
