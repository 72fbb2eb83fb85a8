import type { RulesConfig } from '../config/types.ts'
import { type Interception, isUntouched } from './interception.ts'
import { guardTable } from './nft.ts'
import { bridgeGuard } from './nft-bridge.ts'
import { type Ending, listenerRules } from './nft-listeners.ts'
import { NamedSets, RECEIVED, SENT } from './nft-match.ts'
import { chain, markIs, NOT_SYN, neverIntercepted, nftScript } from './nft-text.ts'
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
  const inet = nftScript(
    'inet',
    guardTable(rules),
    'Drops what closed listeners did not take, also while Limpid is down.',
    [
      ...guardSets(sets, () => [
        ...chain('prerouting', `filter hook prerouting priority ${PRIORITY}`, [
          'iifname "lo" return',
          ...rewritten(received, forwards),
          ...newFlows(rules),
          ...listenerRules(received, sets, RECEIVED, dropReceived),
        ]),
        ...chain(
          'output',
          'filter hook output priority filter',
          local.length === 0
            ? []
            : [
                ...rewritten(local, false),
                ...newFlows(rules),
                'fib daddr type local return',
                ...listenerRules(local, sets, SENT, drop),
              ],
        ),
      ]),
    ],
  )
  const bridge = bridgeGuard(rules, guardTable(rules), closed)
  return bridge === undefined ? [inet] : [inet, bridge]
}

/** The sets that chains need are known when the chains are written, and stand before them. */
function guardSets(sets: NamedSets, chains: () => string[]): string[] {
  const lines = chains()
  return [...sets.lines(), ...lines]
}

function newFlows(rules: RulesConfig): string[] {
  return [
    `${markIs(rules, '!=', 0)} return`,
    '',
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
