import { EPOLLIN, type EventTarget, eventLoop, type Watch } from '../sys/loop.ts'
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket } from '../sys/netlink.ts'
import { attributeOf, type NetlinkMessage, readText, readU32 } from '../sys/netlink-message.ts'
import { guardTable } from './nft.ts'
import { isBypassSet } from './nft-bypass.ts'
import type { Plan } from './plan.ts'
import { OUR_PROTOCOL } from './policy-routing.ts'

/** What may have been changed: ip rules, routes and sysctls (cheap to look at), or nft tables (a process to look at). */
export type Suspect = 'routing' | 'tables'

// linux/rtnetlink.h
const RTM_NEWLINK = 16
const RTM_DELLINK = 17
const RTM_NEWADDR = 20
const RTM_DELADDR = 21
const RTM_NEWROUTE = 24
const RTM_DELROUTE = 25
const RTM_NEWRULE = 32
const RTM_DELRULE = 33
const RTM_NEWNETCONF = 80
const ROUTE_GROUPS = [
  1, // RTNLGRP_LINK
  5, // RTNLGRP_IPV4_IFADDR
  7, // RTNLGRP_IPV4_ROUTE
  8, // RTNLGRP_IPV4_RULE
  9, // RTNLGRP_IPV6_IFADDR
  11, // RTNLGRP_IPV6_ROUTE
  19, // RTNLGRP_IPV6_RULE
  24, // RTNLGRP_IPV4_NETCONF
  25, // RTNLGRP_IPV6_NETCONF
]
const HEADER_BYTES = 12 // struct rtmsg and struct fib_rule_hdr
const TABLE_AT = 4
const RTA_TABLE = 15
const FRA_PROTOCOL = 21

// linux/netfilter/nfnetlink.h, nf_tables.h
const NFNLGRP_NFTABLES = 7
const NFNL_SUBSYS_NFTABLES = 10
const NFT_MSG_NEWSETELEM = 12
const NFT_MSG_NEWGEN = 15
const NFGENMSG_BYTES = 4
const NFTA_TABLE = 1 // the nft table's name, in every kind of message
const NFTA_SET_ELEM_LIST_SET = 2

const DATAGRAMS_PER_TURN = 256
const PAUSE_MS = 20 // 50 turns a second however much others change; 200 KB hold what 10 000 changes/s bring meanwhile

/** The names by which messages are known to be about our rules. */
export interface WatchedNames {
  readonly routeTable: number
  readonly nftTables: ReadonlySet<string>
}

const IPTABLES_TABLES = ['raw', 'mangle', 'nat', 'filter'] // what iptables-nft calls its nft tables

export function watchedNames({ rules, backend }: Plan): WatchedNames {
  const nftTables = backend === 'nft' ? [rules.nftTable, guardTable(rules)] : IPTABLES_TABLES
  return { routeTable: rules.routeTable, nftTables: new Set(nftTables) }
}

/** What a message makes suspect; undefined for what does not concern our rules. */
export function suspectOf({ type, body }: NetlinkMessage, names: WatchedNames): Suspect | undefined {
  if (type >> 8 === NFNL_SUBSYS_NFTABLES) {
    if ((type & 0xff) === NFT_MSG_NEWGEN) return undefined
    if ((type & 0xff) === NFT_MSG_NEWSETELEM && isOfBypass(body)) return undefined
    const name = attributeOf(body, NFGENMSG_BYTES, NFTA_TABLE)
    return name !== undefined && names.nftTables.has(readText(name)) ? 'tables' : undefined
  }
  switch (type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const table = attributeOf(body, HEADER_BYTES, RTA_TABLE)
      return (table === undefined ? body[TABLE_AT] : readU32(table, 0)) === names.routeTable ? 'routing' : undefined
    }
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return attributeOf(body, HEADER_BYTES, FRA_PROTOCOL)?.[0] === OUR_PROTOCOL ? 'routing' : undefined
    // routes vanish without a word of their own when their interface goes down
    case RTM_NEWLINK:
    case RTM_DELLINK:
    case RTM_NEWADDR:
    case RTM_DELADDR:
    case RTM_NEWNETCONF:
      return 'routing'
    default:
      return undefined
  }
}

/** A prefix that is bypassed from now on: no damage, and most are our own. */
function isOfBypass(body: Uint8Array): boolean {
  const set = attributeOf(body, NFGENMSG_BYTES, NFTA_SET_ELEM_LIST_SET)
  return set !== undefined && isBypassSet(readText(set))
}

/** Hears of changes to rules, routes, interfaces and nft tables of this network namespace. */
export class RuleWatch implements Disposable {
  readonly #sources: Source[]

  /**
   * @param onSuspect called once for each batch of messages and suspect, within a turn of the event loop.
   * @throws SyscallError when the kernel does not let us listen.
   */
  constructor(names: WatchedNames, onSuspect: (suspect: Suspect) => void) {
    this.#sources = []
    try {
      this.#sources.push(new Source(NETLINK_ROUTE, ROUTE_GROUPS, names, onSuspect))
      this.#sources.push(new Source(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], names, onSuspect))
    } catch (error) {
      this[Symbol.dispose]()
      throw error
    }
  }

  [Symbol.dispose](): void {
    for (const source of this.#sources.splice(0)) source[Symbol.dispose]()
  }
}

/** One socket. After each batch it is left alone for a while, so that a storm of messages costs a bounded number of turns. */
class Source implements EventTarget, Disposable {
  readonly #socket: NetlinkSocket
  readonly #whenLost: Suspect
  readonly #names: WatchedNames
  readonly #onSuspect: (suspect: Suspect) => void
  readonly #watch: Watch
  #pause: NodeJS.Timeout | undefined

  constructor(
    protocol: typeof NETLINK_ROUTE | typeof NETLINK_NETFILTER,
    groups: readonly number[],
    names: WatchedNames,
    onSuspect: (suspect: Suspect) => void,
  ) {
    this.#whenLost = protocol === NETLINK_ROUTE ? 'routing' : 'tables'
    this.#names = names
    this.#onSuspect = onSuspect
    this.#socket = NetlinkSocket.open(protocol)
    try {
      for (const group of groups) this.#socket.join(group)
      this.#watch = eventLoop.add(this.#socket.fd, EPOLLIN, this)
    } catch (error) {
      this.#socket[Symbol.dispose]()
      throw error
    }
  }

  onEvents(): void {
    const suspects = new Set<Suspect>()
    const outcome = this.#socket.drain(DATAGRAMS_PER_TURN, (message) => {
      const suspect = suspectOf(message, this.#names)
      if (suspect !== undefined) suspects.add(suspect)
    })
    if (outcome === 'lost') suspects.add(this.#whenLost)
    eventLoop.modify(this.#watch, 0)
    clearTimeout(this.#pause) // an overrun is reported during a pause, too
    this.#pause = setTimeout(() => eventLoop.modify(this.#watch, EPOLLIN), PAUSE_MS)
    for (const suspect of suspects) this.#onSuspect(suspect)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#pause)
    eventLoop.close(this.#watch)
  }
}
