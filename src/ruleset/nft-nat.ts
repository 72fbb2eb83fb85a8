import { MATCH_ANY } from '../config/defaults.ts'
import type { ForwardConfig, RulesConfig } from '../config/types.ts'
import { type Endpoint, familyOf, formatEndpoint } from '../net/address.ts'
import { formatPortRange } from '../net/ports.ts'
import type { Interception } from './interception.ts'
import { listenerConditions, listenerRules, listenersInOrder } from './nft-listeners.ts'
import {
  addressKeyword,
  matchAlternatives,
  matchConditions,
  type NamedSets,
  RECEIVED,
  SENT,
  withoutConditions,
} from './nft-match.ts'
import {
  chain,
  commentText,
  isBroughtUp,
  listenerComment,
  markIs,
  NOT_SYN,
  neverIntercepted,
  setName,
} from './nft-text.ts'
import { CONNTRACK_ZONE, hex, localMark } from './policy-routing.ts'

/** The chains of redirect and dnat listeners, and of kernel port forwarding. `interceptions`: of such listeners. */
export function natChains(
  rules: RulesConfig,
  interceptions: readonly Interception[],
  forwards: readonly ForwardConfig[],
  sets: NamedSets,
): string[] {
  const received = interceptions.filter(({ path }) => path !== 'local')
  const local = interceptions.filter(({ path }) => path === 'local')
  return [
    ...zoneChain(rules, received, sets),
    ...chain('nat-prerouting', 'nat hook prerouting priority dstnat', [
      ...(received.length === 0 && forwards.length === 0 ? [] : ['iifname "lo" return']),
      // what is bypassed is passed on all the same
      ...(forwards.length === 0 ? [] : [`${markIs(rules, '==', rules.interceptMark)} return`]),
      ...forwards.flatMap((forward) => forwardLines(forward, sets)),
      ...(received.length === 0
        ? []
        : [
            ...(forwards.length === 0 ? [] : ['']),
            received.some(({ path }) => path === 'bridged')
              ? `meta mark & ${hex(rules.markMask)} != { 0x0, ${hex(localMark(rules))} } return`
              : `${markIs(rules, '!=', 0)} return`,
            ...newFlows(
              received,
              listenersInOrder(
                received,
                sets,
                RECEIVED,
                (one) => `${one.path === 'bridged' ? `${isBroughtUp(rules)} ` : ''}${rewriteTo(one)}`,
              ),
            ),
          ]),
    ]),
    ...chain(
      'nat-output',
      'nat hook output priority -100',
      local.length === 0
        ? []
        : [
            "# Limpid's own packets",
            `${markIs(rules, '!=', 0)} return`,
            'fib daddr type local return',
            ...newFlows(local, listenerRules(local, sets, SENT, rewriteTo)),
          ],
    ),
    ...forwardChains(forwards),
  ]
}

/** These hooks see only what conntrack calls the first packet of a flow: a SYN, or any datagram. */
function newFlows(interceptions: readonly Interception[], rules: readonly string[]): string[] {
  const protocols = [...new Set(interceptions.map(({ protocol }) => protocol))].sort()
  const asked = protocols.length === 1 ? protocols[0] : `{ ${protocols.join(', ')} }`
  return [
    `meta l4proto != ${asked} return`,
    ...(protocols.includes('tcp') ? [`${NOT_SYN} return`] : []),
    '',
    ...neverIntercepted(),
    ...rules,
  ]
}

function rewriteTo({ listener, family, to, toPorts }: Interception): string {
  if (listener.intercept === 'dnat') return `counter dnat ${addressKeyword(family)} to ${formatEndpoint(to)}`
  const random = toPorts.from === toPorts.to ? '' : ' random'
  return `counter redirect to :${formatPortRange(toPorts)}${random}`
}

/**
 * A dial from the client's own address and port looks like the client's packet: conntrack would take it for that and
 * rewrite it to ourselves. Its own zone for this direction keeps them apart; the answers are found by their addresses. Only
 * for these listeners: another's dial would lose its port by it.
 */
function zoneChain(rules: RulesConfig, interceptions: readonly Interception[], sets: NamedSets): string[] {
  const foreign = interceptions.filter(({ listener }) => listener.source !== 'proxy')
  if (foreign.length === 0) return []
  const lines = foreign.flatMap((interception) => {
    const { listener } = interception
    const { destinations, ports } = listener.match
    const dialled = { ...listener, match: { ...MATCH_ANY, destinations, ports }, exclude: MATCH_ANY }
    return listenerConditions({ ...interception, path: 'forwarded', listener: dialled }, sets, SENT).map(
      (conditions) => `${conditions.join(' ')} ct original zone set ${CONNTRACK_ZONE} ${listenerComment(listener)}`,
    )
  })
  return chain('zone', 'filter hook output priority raw', [
    `${markIs(rules, '!=', rules.bypassMark)} return`,
    'fib saddr type local return',
    ...lines,
  ])
}

function forwardLines(forward: ForwardConfig, sets: NamedSets): string[] {
  const family = familyOf(forward.to.address)
  const rules = forward.protocols.flatMap((protocol) => {
    const place = { ...RECEIVED, protocol }
    const name = setName('forward', forward)
    const wanted = matchConditions(forward.match, family, name, sets, place)
    const unwanted = withoutConditions(forward.exclude, family, `${name}-not`, sets, place)
    if (wanted === undefined || unwanted === undefined) return []
    const here = forward.match.destinations.length === 0 ? ['fib daddr type local'] : []
    const conditions = [`meta nfproto ipv${family}`, ...here, `meta l4proto ${protocol}`, ...wanted, ...unwanted]
    return matchAlternatives(forward.match, place).map((alternative) =>
      [...conditions, ...alternative, `counter dnat ${addressKeyword(family)} to ${targetText(forward.to)}`].join(' '),
    )
  })
  return ['', `# forward ${commentText(forward.name)}`, ...rules.map((rule) => `${rule} ${forwardComment(forward)}`)]
}

/** Hides the client where that is asked, and counts what is passed on, both ways. */
function forwardChains(forwards: readonly ForwardConfig[]): string[] {
  const lines = (each: (forward: ForwardConfig, protocol: string, ip: string) => string[]): string[] =>
    forwards.flatMap((forward) =>
      forward.protocols.flatMap((protocol) => each(forward, protocol, addressKeyword(familyOf(forward.to.address)))),
    )
  const port = (forward: ForwardConfig, protocol: string, field: string) =>
    forward.to.port === 0 ? `meta l4proto ${protocol}` : `${protocol} ${field} ${forward.to.port}`
  return [
    ...chain(
      'nat-postrouting',
      'nat hook postrouting priority srcnat',
      lines((forward, protocol, ip) =>
        forward.source === 'client'
          ? []
          : [
              `ct status dnat ${ip} daddr ${forward.to.address} ${port(forward, protocol, 'dport')} masquerade ${forwardComment(forward)}`,
            ],
      ),
    ),
    ...chain(
      'forward',
      'filter hook forward priority filter',
      lines((forward, protocol, ip) => [
        `ct status dnat ct direction original ${ip} daddr ${forward.to.address} ${port(forward, protocol, 'dport')} counter accept comment "forward ${commentText(forward.name)} up"`,
        `ct status dnat ct direction reply ${ip} saddr ${forward.to.address} ${port(forward, protocol, 'sport')} counter accept comment "forward ${commentText(forward.name)} down"`,
      ]),
    ),
  ]
}

function forwardComment(forward: ForwardConfig): string {
  return `comment "forward ${commentText(forward.name)}"`
}

function targetText({ address, port }: Endpoint): string {
  if (port !== 0) return formatEndpoint({ address, port })
  return address
}
