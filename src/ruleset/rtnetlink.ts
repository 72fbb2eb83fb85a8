import type { Family } from '../net/address.ts'
import { littleEndian } from '../sys/byte-order.ts'
import { ENOENT, SyscallError } from '../sys/errno.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../sys/netlink.ts'
import {
  attributeOf,
  attributesIn,
  encodeBody,
  encodeByte,
  encodeText,
  encodeU32,
  type NetlinkMessage,
  readText,
  readU32,
} from '../sys/netlink-message.ts'
import { AF_INET, AF_INET6, domainOf } from '../sys/sockaddr.ts'
import { hex, type IpRule, ipRuleArgs, type LocalRoute, OUR_PROTOCOL, routeArgs } from './policy-routing.ts'

// linux/rtnetlink.h, linux/fib_rules.h, linux/if.h
const RTM_GETLINK = 18
const RTM_NEWROUTE = 24
const RTM_DELROUTE = 25
const RTM_GETROUTE = 26
const RTM_NEWRULE = 32
const RTM_DELRULE = 33
const RTM_GETRULE = 34
const NEW = 0x200 | 0x400 // NLM_F_EXCL | NLM_F_CREATE

const LINK_BYTES = 16 // struct ifinfomsg
const LINK_INDEX_AT = 4
const LINK_FLAGS_AT = 8
const IFF_UP = 0x1

const RULE_BYTES = 12 // struct fib_rule_hdr
const RULE_ACTION_AT = 7
const RULE_FLAGS_AT = 8
const FIB_RULE_INVERT = 0x2
const ACTIONS = { lookup: 1, goto: 2, nop: 3 } as const
const FRA_IIFNAME = 3
const FRA_GOTO = 4
const FRA_PRIORITY = 6
const FRA_FWMARK = 10
const FRA_SUPPRESS_PREFIXLEN = 14
const FRA_TABLE = 15
const FRA_FWMASK = 16
const FRA_PROTOCOL = 21

const ROUTE_BYTES = 12 // struct rtmsg
const ROUTE_TABLE_AT = 4
const ROUTE_PROTOCOL_AT = 5
const ROUTE_TYPE_AT = 7
const RTN_LOCAL = 2
const RT_SCOPE_HOST = 254
const RTA_DST = 1
const RTA_OIF = 4
const RTA_TABLE = 15
const DOMAINS = [AF_INET, AF_INET6]
const LOOPBACK_INDEX = 1 // in every network namespace (drivers/net/loopback.c)

/** An ip rule or route with our protocol number, as the kernel has it. */
export interface KernelEntry {
  readonly family: Family
  /** As the arguments that would make it. */
  readonly text: string
  /** What the kernel said, which also names it for the kernel. */
  readonly body: Uint8Array
}

/** A route of ours; `isPlanned`: of the kind that we make, in whatever route table. */
export interface KernelRoute extends KernelEntry {
  readonly table: number
  readonly isPlanned: boolean
}

/** What decides whether an ip rule of somebody else is in the way of ours. */
export interface ForeignRule {
  readonly priority: number
  readonly mark: number | undefined
  readonly mask: number | undefined
}

/**
 * The ip rules and routes of this network namespace, by netlink: a tenth of a millisecond where starting `ip` takes some
 * ten, and no process where there is no memory for one.
 */
export class PolicyRouting implements Disposable {
  readonly #socket = NetlinkSocket.open(NETLINK_ROUTE)

  /** Our rules of both families, in the kernel's order. */
  rules(): KernelEntry[] {
    return DOMAINS.flatMap((domain) =>
      this.#dumpRules(domain).flatMap(({ body }) => ruleEntry(familyOfDomain(domain), body)),
    )
  }

  /** Those of others, both families. */
  foreignRules(): ForeignRule[] {
    return DOMAINS.flatMap((domain) => this.#dumpRules(domain).flatMap(({ body }) => foreignRule(body)))
  }

  /** Our routes in a route table, or in all of them, both families. */
  routes(table?: number): KernelRoute[] {
    return DOMAINS.flatMap((domain) => {
      const found = this.#dumpRoutes(domain, { table, protocol: OUR_PROTOCOL })
      return found.flatMap(({ body }) => routeEntry(familyOfDomain(domain), table, body))
    })
  }

  /** Whether a route table has a route of somebody else, of either family. */
  hasForeignRoutes(table: number): boolean {
    const found = DOMAINS.flatMap((domain) => this.#dumpRoutes(domain, { table, protocol: 0 }))
    return found.some(({ body }) => tableOf(body) === table && body[ROUTE_PROTOCOL_AT] !== OUR_PROTOCOL)
  }

  /** Whether lo is up: routes to it cannot be made while it is down. */
  isLoopbackUp(): boolean {
    const header = new Uint8Array(LINK_BYTES)
    header[LINK_INDEX_AT + (littleEndian ? 0 : 3)] = LOOPBACK_INDEX
    const link = this.#socket.ask(RTM_GETLINK, header, 'ip link show dev lo')
    return link !== undefined && (readU32(link.body, LINK_FLAGS_AT) & IFF_UP) !== 0
  }

  /** @throws SyscallError, also EEXIST. */
  addRule(rule: IpRule): void {
    this.#socket.change(RTM_NEWRULE, NEW, encodeRule(rule), `ip -${rule.family} rule add ${ipRuleArgs(rule).join(' ')}`)
  }

  deleteRule({ family, text, body }: KernelEntry): void {
    this.#socket.change(RTM_DELRULE, 0, body, `ip -${family} rule del ${text}`)
  }

  /** @throws SyscallError, also EEXIST, and ENETDOWN while lo is down. */
  addRoute(route: LocalRoute): void {
    this.#socket.change(
      RTM_NEWROUTE,
      NEW,
      encodeRoute(route),
      `ip -${route.family} route add ${routeArgs(route).join(' ')}`,
    )
  }

  deleteRoute({ family, text, body }: KernelEntry): void {
    this.#socket.change(RTM_DELROUTE, 0, body, `ip -${family} route del ${text}`)
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
  }

  /** A kernel without that family answers with what it has. */
  #dumpRules(domain: number): NetlinkMessage[] {
    const found = this.#socket.dump(RTM_GETRULE, headerOf(domain, RULE_BYTES), 'ip rules')
    return found.filter(({ body }) => body[0] === domain)
  }

  /** The kernel picks them out: a router may have a million others. `protocol` 0: of any. */
  #dumpRoutes(domain: number, wanted: { readonly table: number | undefined; readonly protocol: number }) {
    const header = headerOf(domain, ROUTE_BYTES)
    header[ROUTE_PROTOCOL_AT] = wanted.protocol
    const body = encodeBody(header, wanted.table === undefined ? [] : [encodeU32(RTA_TABLE, wanted.table)])
    try {
      return this.#socket.dump(RTM_GETROUTE, body, 'ip routes').filter((found) => found.body[0] === domain)
    } catch (error) {
      if (error instanceof SyscallError && error.errno === ENOENT) return [] // no such route table
      throw error
    }
  }
}

function familyOfDomain(domain: number): Family {
  return domain === AF_INET ? 4 : 6
}

function headerOf(domain: number, length: number): Uint8Array {
  const header = new Uint8Array(length)
  header[0] = domain
  return header
}

function encodeRule({ family, priority, iif, mark, action }: IpRule): Uint8Array {
  const header = headerOf(domainOf(family), RULE_BYTES)
  const attributes = [encodeU32(FRA_PRIORITY, priority), encodeByte(FRA_PROTOCOL, OUR_PROTOCOL)]
  if (iif !== undefined) attributes.push(encodeText(FRA_IIFNAME, iif))
  if (mark !== undefined) attributes.push(encodeU32(FRA_FWMARK, mark.value), encodeU32(FRA_FWMASK, mark.mask))
  if (action === 'nop') {
    header[RULE_ACTION_AT] = ACTIONS.nop
  } else if ('goto' in action) {
    header[RULE_ACTION_AT] = ACTIONS.goto
    attributes.push(encodeU32(FRA_GOTO, action.goto))
  } else {
    header[RULE_ACTION_AT] = ACTIONS.lookup
    attributes.push(encodeU32(FRA_TABLE, action.lookup))
  }
  return encodeBody(header, attributes)
}

/** Empty for a rule of somebody else. What we never make is named by its number, so that it is a difference. */
function ruleEntry(family: Family, body: Uint8Array): KernelEntry[] {
  let [iif, mark, mask, table, target]: (string | number | undefined)[] = []
  let [priority, protocol] = [0, 0]
  const others: string[] = []
  for (const [type, value] of attributesIn(body, RULE_BYTES)) {
    if (type === FRA_PRIORITY) priority = readU32(value, 0)
    else if (type === FRA_PROTOCOL) protocol = value[0]!
    else if (type === FRA_IIFNAME) iif = readText(value)
    else if (type === FRA_FWMARK) mark = readU32(value, 0)
    else if (type === FRA_FWMASK) mask = readU32(value, 0)
    else if (type === FRA_TABLE) table = readU32(value, 0)
    else if (type === FRA_GOTO) target = readU32(value, 0)
    else if (type !== FRA_SUPPRESS_PREFIXLEN || readU32(value, 0) !== 0xffff_ffff) others.push(`attribute ${type}`)
  }
  if (protocol !== OUR_PROTOCOL) return []
  const action = body[RULE_ACTION_AT]!
  const words = [
    ...((readU32(body, RULE_FLAGS_AT) & FIB_RULE_INVERT) === 0 ? [] : ['not']),
    ...['pref', priority],
    ...(iif === undefined ? [] : ['iif', iif]),
    ...(mark === undefined ? [] : ['fwmark', `${hex(Number(mark))}/${hex(Number(mask ?? 0xffff_ffff))}`]),
    ...others,
    ...actionWords(action, table, target),
    ...['protocol', protocol],
  ]
  return [{ family, text: words.join(' '), body }]
}

function actionWords(action: number, table: unknown, target: unknown): unknown[] {
  if (action === ACTIONS.lookup) return ['lookup', table]
  if (action === ACTIONS.goto) return ['goto', target]
  return action === ACTIONS.nop ? ['nop'] : ['action', action]
}

function encodeRoute({ family, table }: LocalRoute): Uint8Array {
  const scope = family === 4 ? RT_SCOPE_HOST : 0 // IPv6 has none
  const header = Uint8Array.of(domainOf(family), 0, 0, 0, 0, OUR_PROTOCOL, scope, RTN_LOCAL, 0, 0, 0, 0)
  return encodeBody(header, [encodeU32(RTA_TABLE, table), encodeU32(RTA_OIF, LOOPBACK_INDEX)])
}

/** Empty for a rule of ours. */
function foreignRule(body: Uint8Array): ForeignRule[] {
  const attribute = (wanted: number) => attributeOf(body, RULE_BYTES, wanted)
  if (attribute(FRA_PROTOCOL)?.[0] === OUR_PROTOCOL) return []
  const [priority, mark, mask] = [FRA_PRIORITY, FRA_FWMARK, FRA_FWMASK].map((wanted) => {
    const value = attribute(wanted)
    return value === undefined ? undefined : readU32(value, 0)
  })
  // the rule at priority 0 has no attribute for it; without a mark the kernel sends neither
  return [{ priority: priority ?? 0, mark, mask: mark === undefined ? undefined : (mask ?? 0xffff_ffff) }]
}

/** Empty for a route of somebody else or of another route table (a kernel before 4.20 sends them all). */
function routeEntry(family: Family, wantedTable: number | undefined, body: Uint8Array): KernelRoute[] {
  const table = tableOf(body)
  let oif: number | undefined
  let isDefault = body[1] === 0
  for (const [type, value] of attributesIn(body, ROUTE_BYTES)) {
    if (type === RTA_OIF) oif = readU32(value, 0)
    else if (type === RTA_DST) isDefault = false
  }
  if (table !== (wantedTable ?? table) || body[ROUTE_PROTOCOL_AT] !== OUR_PROTOCOL) return []
  const isPlanned = isDefault && body[ROUTE_TYPE_AT] === RTN_LOCAL && oif === LOOPBACK_INDEX
  const text = routeArgs({ family, table }).join(' ')
  return [{ family, table, isPlanned, text: isPlanned ? text : `${text}, but of another kind`, body }]
}

function tableOf(body: Uint8Array): number {
  const table = attributeOf(body, ROUTE_BYTES, RTA_TABLE)
  return table === undefined ? body[ROUTE_TABLE_AT]! : readU32(table, 0)
}
