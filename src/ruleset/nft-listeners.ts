import type { ListenerConfig, RulesConfig } from '../config/types.ts'
import { formatEndpoint } from '../net/address.ts'
import type { Interception } from './interception.ts'
import {
  addressKeyword,
  inExcludedCgroup,
  type MatchPlace,
  matchAlternatives,
  matchConditions,
  type NamedSets,
  withoutConditions,
} from './nft-match.ts'
import { commentText, isBroughtUp, listenerComment, setName } from './nft-text.ts'

/** What to do with a packet that fulfils a listener's conditions: the end of a rule. */
export type Ending = (interception: Interception) => string

/** The rules of listeners: one for each family and path, with a heading for each listener. */
export function listenerRules(
  interceptions: readonly Interception[],
  sets: NamedSets,
  place: MatchPlace,
  ending: Ending,
): string[] {
  let previous: ListenerConfig | undefined
  return interceptions.flatMap((interception) => {
    const { listener } = interception
    const heading = listener === previous ? [] : ['', `# listener ${commentText(listener.name)}`]
    previous = listener
    const rules = listenerConditions(interception, sets, place)
    const excluded = inExcludedCgroup(listener.exclude, place)
    const end = `${ending(interception)} ${listenerComment(listener)}`
    return [...heading, ...rules.flatMap((conditions) => ruleLines(interception, conditions, excluded, end))]
  })
}

/** Exclusions that cannot be negated leave a chain of the rule's own, to where the next rule is asked. */
function ruleLines(
  { protocol }: Interception,
  conditions: readonly string[],
  excluded: readonly string[],
  end: string,
): string[] {
  if (excluded.length === 0) return [`${conditions.join(' ')} ${end}`]
  // nft wants to see the protocol in each rule that rewrites a port
  return [
    `${conditions.join(' ')} jump {`,
    ...excluded.map((condition) => `\t${condition} return`),
    `\tmeta l4proto ${protocol} ${end}`,
    '}',
  ]
}

/**
 * Those that take what is addressed to this host before the others, which follow a rule that lets it by: `letBy` is the end of
 * that rule.
 */
export function listenersInOrder(
  interceptions: readonly Interception[],
  sets: NamedSets,
  place: MatchPlace,
  ending: Ending,
  letBy = 'return',
): string[] {
  const anywhere = interceptions.filter(({ listener }) => listener.addressedHere)
  const elsewhere = interceptions.filter(({ listener }) => !listener.addressedHere)
  return [
    ...listenerRules(anywhere, sets, place, ending),
    '',
    '# addressed to this host',
    `fib daddr type local ${letBy}`,
    ...listenerRules(elsewhere, sets, place, ending),
  ]
}

/** One list for each rule that it takes to say them; none when no packet of the family can fulfil them. */
export function listenerConditions(interception: Interception, sets: NamedSets, where: MatchPlace): string[][] {
  const { listener, family, protocol } = interception
  const place = { ...where, protocol }
  const { match, exclude } = interfacesOf(interception, place)
  const wanted = matchConditions(match, family, setName('listener', listener), sets, place)
  const unwanted = withoutConditions(exclude, family, `${setName('listener', listener)}-not`, sets, place)
  if (wanted === undefined || unwanted === undefined) return []
  const conditions = [...wanted, ...unwanted]
  if (!conditions.some((condition) => /^ip6? /.test(condition))) {
    conditions.unshift(place.bridge ? `ether type ${addressKeyword(family)}` : `meta nfproto ipv${family}`)
  }
  // nft wants to see it in each rule with tproxy
  if (!conditions.some((condition) => condition.startsWith(`${protocol} `))) conditions.push(`meta l4proto ${protocol}`)
  return matchAlternatives(match, place).map((alternative) => [...conditions, ...alternative])
}

/** The end of the rules of tproxy and mark listeners for what was received: `taken` follows where the packet is taken. */
export function toListener(rules: RulesConfig, taken: string): Ending {
  return (interception) => {
    const broughtUp = interception.path === 'bridged' ? `${isBroughtUp(rules)} ` : ''
    return `${broughtUp}${isTproxy(interception) ? `${tproxyTo(interception)} ` : ''}counter ${taken}`
  }
}

export function isTproxy({ listener }: Interception): boolean {
  return listener.intercept === 'tproxy'
}

export function tproxyTo({ family, to }: Interception): string {
  return `tproxy ${addressKeyword(family)} to ${formatEndpoint(to)}`
}

/** A frame that was brought up from a bridge was received by the bridge, whichever port it came in on. */
function interfacesOf(
  { listener, path, bridges }: Interception,
  place: MatchPlace,
): Pick<ListenerConfig, 'match' | 'exclude'> {
  if (path !== 'bridged') return listener
  const names = place.bridge ? bridges.flatMap(({ from }) => from) : bridges.map(({ name }) => name)
  return {
    match: { ...listener.match, interfaces: names },
    exclude: { ...listener.exclude, interfaces: [] },
  }
}
