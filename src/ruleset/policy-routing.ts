import type { RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'

/** The rtnetlink protocol number of our ip rules and routes, by which they are known as ours (ip-rule(8), ip-route(8)). */
export const OUR_PROTOCOL = 195

/** The conntrack zone of our dials from clients' addresses, where NAT took the clients: any but 0, known in `conntrack -L`. */
export const CONNTRACK_ZONE = 19_536

/** A rule of the routing policy database; `mark` always comes with its mask. */
export interface IpRule {
  readonly family: Family
  readonly priority: number
  readonly iif: string | undefined
  readonly mark: { readonly value: number; readonly mask: number } | undefined
  readonly action: { readonly lookup: number } | { readonly goto: number } | 'nop'
}

/** `local default dev lo` in a route table: whatever comes here is delivered on this host. */
export interface LocalRoute {
  readonly family: Family
  readonly table: number
}

/**
 * The rules that send packets with the intercept mark to our route table, though only packets that were received.
 *
 * The kernel also looks up routes that start here (`iif lo`) with that mark: for the answers of sockets when
 * tcp_fwmark_accept=1, for resets when fwmark_reflect=1, and to check a packet's source when src_valid_mark=1
 * (net/ipv4/fib_frontend.c). Our route table would send those to lo, and the flow would die. Hence the detour: a rule cannot
 * say "not from lo, and this mark", since `not` negates the whole rule.
 */
export function ipRulesFor(family: Family, rules: RulesConfig, options: { readonly local?: boolean } = {}): IpRule[] {
  const mark = { value: rules.interceptMark, mask: rules.markMask }
  const sent = { value: localMark(rules), mask: rules.markMask }
  const priority = rules.rulePriority
  return [
    ...(options.local === true
      ? [{ family, priority: priority - 2, iif: undefined, mark: sent, action: { lookup: rules.routeTable } }]
      : []),
    { family, priority: priority - 1, iif: 'lo', mark, action: { goto: priority + 1 } },
    { family, priority, iif: undefined, mark, action: { lookup: rules.routeTable } },
    { family, priority: priority + 1, iif: undefined, mark: undefined, action: 'nop' },
  ]
}

/** On packets of this host's processes that are taken: routes are looked up for them where they start, `iif lo`. */
export function localMark(rules: RulesConfig): number {
  return (rules.interceptMark | rules.bypassMark) >>> 0
}

/** The arguments for `ip`, to follow `rule add` or `rule del`. */
export function ipRuleArgs({ priority, iif, mark, action }: IpRule): string[] {
  return [
    ...['pref', `${priority}`],
    ...(iif === undefined ? [] : ['iif', iif]),
    ...(mark === undefined ? [] : ['fwmark', `${hex(mark.value)}/${hex(mark.mask)}`]),
    ...ipRuleAction(action),
    ...['protocol', `${OUR_PROTOCOL}`],
  ]
}

function ipRuleAction(action: IpRule['action']): string[] {
  if (action === 'nop') return ['nop']
  return 'goto' in action ? ['goto', `${action.goto}`] : ['lookup', `${action.lookup}`]
}

/** The arguments for `ip`, to follow `route add` or `route del`. */
export function routeArgs({ table }: LocalRoute): string[] {
  return ['local', 'default', 'dev', 'lo', 'table', `${table}`, 'proto', `${OUR_PROTOCOL}`]
}

/** `0x10000000`. */
export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`
}

/** The priorities that our ip rules take. */
export function prioritiesOf(rules: RulesConfig): number[] {
  return [rules.rulePriority - 2, rules.rulePriority - 1, rules.rulePriority, rules.rulePriority + 1]
}
