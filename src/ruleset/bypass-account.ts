import { LimpidError } from '../errors.ts'
import { formatPrefix, type Prefix, parsePrefix } from '../net/prefix.ts'
import { run } from '../sys/program.ts'
import { BACKENDS } from './backend.ts'
import { BYPASS_CONNECTIONS, BYPASS_PACKETS, type BypassCount, bypassSetsOf } from './nft-bypass.ts'
import { listTableWithCounters } from './nft-commands.ts'
import type { Plan } from './plan.ts'

const NFT_TIMEOUT_MS = 20_000 // 65,536 elements are listed in a second

/** What the kernel forwarded by itself, both ways: of TCP beginnings (SYNs, repeated ones too), and packets of TCP and UDP. */
export interface BypassCounts {
  readonly connections: number
  /** Undefined where the backend does not count them. `bytes`: of IP packets. */
  readonly packets: number | undefined
  readonly bytes: number | undefined
}

/** An nft set of ours, and what its elements count. */
export interface ElementSet {
  /** `inet limpid bypass4`. */
  readonly name: string
  readonly family: 4 | 6
  readonly count: BypassCount
}

/** One element, as nft lists it. */
export interface ListedElement {
  readonly prefix: Prefix
  readonly packets: number
  readonly bytes: number
}

/** The nft sets in which a plan's bypassed prefixes are; none with iptables, and where nothing is intercepted. */
export function elementSetsOf({ backend, interceptions, main, rules }: Plan): ElementSet[] {
  if (backend !== 'nft') return []
  return main.flatMap(({ name }) => {
    const isBridge = name.startsWith('bridge ')
    const asked = isBridge
      ? interceptions.filter(({ path, bridges }) => path === 'bridged' && bridges.length > 0)
      : interceptions
    return bypassSetsOf(asked).map(({ name: set, family, count }) => ({
      ...{ family, count },
      name: `${isBridge ? 'bridge' : 'inet'} ${rules.nftTable} ${set}`,
    }))
  })
}

/** The elements of a set; none when it is gone. @throws LimpidError LIMPID_PROGRAM */
export async function listElements({ name }: ElementSet): Promise<ListedElement[]> {
  const { code, stdout, stderr } = await run('nft', ['-j', 'list', 'set', ...name.split(' ')], {
    timeoutMs: NFT_TIMEOUT_MS,
  })
  if (code === 0) return parseElements(stdout)
  if (stderr.includes('No such file or directory')) return []
  throw new LimpidError('LIMPID_PROGRAM', `nft list set ${name}: ${stderr.trim().split('\n')[0] ?? ''}`)
}

/** From `nft -j list set`. */
export function parseElements(json: string): ListedElement[] {
  const { nftables } = JSON.parse(json) as { nftables: { set?: { elem?: unknown[] } }[] }
  const elements = nftables.flatMap(({ set }) => set?.elem ?? [])
  return elements.flatMap((element) => {
    const { val, counter } = (element as { elem?: Elem }).elem ?? { val: element as Elem['val'] }
    const prefix = parsePrefix(typeof val === 'string' ? val : `${val.prefix?.addr}/${val.prefix?.len}`)
    return prefix === undefined ? [] : [{ prefix, packets: counter?.packets ?? 0, bytes: counter?.bytes ?? 0 }]
  })
}

interface Elem {
  readonly val: string | { readonly prefix?: { readonly addr: string; readonly len: number } }
  readonly counter?: { readonly packets: number; readonly bytes: number }
}

export interface BypassAccounts {
  /** By formatPrefix(): those that are in the kernel. */
  readonly of: ReadonlyMap<string, BypassCounts>
  /** Since the rules were loaded, also of prefixes that are gone. */
  readonly total: BypassCounts
}

/** Reads the counters. Empty, with a total of nothing, when the rules are gone. */
export async function readBypassAccounts(plan: Plan): Promise<BypassAccounts> {
  if (plan.backend === 'iptables') return iptablesAccounts(await iptablesListing(plan), plan.bypass)
  const listing = (await listTableWithCounters(plan.rules.nftTable)) ?? ''
  const total = nftTotal(listing)
  const sets = elementSetsOf(plan)
  const lists = await Promise.all(sets.map(listElements))
  const of = new Map<string, BypassCounts>()
  for (const [i, { count }] of sets.entries()) {
    for (const { prefix, packets, bytes } of lists[i]!) {
      const key = formatPrefix(prefix)
      const sum = of.get(key) ?? { connections: 0, packets: 0, bytes: 0 }
      const connections = sum.connections + (count === 'connections' ? packets : 0)
      of.set(key, { connections, packets: sum.packets! + packets, bytes: sum.bytes! + bytes })
    }
  }
  return { of, total }
}

async function iptablesListing(plan: Plan): Promise<string> {
  if (plan.bypass.length === 0) return ''
  const backend = BACKENDS.iptables
  const label = backend.label(plan.rules, 'main')
  const found = (await backend.listOurs()).find((rules) => rules.label === label)
  return found === undefined ? '' : await backend.listWithCounters(found)
}

/** `counter packets 1 bytes 60 comment "bypass connections"`; a connection's first packet is a packet, too. */
export function nftTotal(listing: string): BypassCounts {
  const sum = { connections: 0, packets: 0, bytes: 0 }
  for (const [, packets, bytes, what] of listing.matchAll(
    /counter packets (\d+) bytes (\d+) (?:return )?comment "(bypass [a-z]+)"/g,
  )) {
    if (what !== BYPASS_CONNECTIONS && what !== BYPASS_PACKETS) continue
    if (what === BYPASS_CONNECTIONS) sum.connections += Number(packets)
    sum.packets += Number(packets)
    sum.bytes += Number(bytes)
  }
  return sum
}

/**
 * `[1:60] -A limpid-prerouting … --comment "bypass tcp 10.0.0.0/8" …`: iptables has rules for what begins, none for what follows. The
 * chains of mangle and nat that have one name see the same connections.
 */
export function iptablesAccounts(listing: string, bypass: readonly Prefix[]): BypassAccounts {
  const seen = new Map<string, number>()
  const of = new Map<string, BypassCounts>()
  for (const line of listing.split('\n')) {
    const [, packets, chain, key] = /^\[(\d+):\d+\] -A (\S+) .*--comment "bypass tcp ([^"]+)"/.exec(line) ?? []
    if (key === undefined) continue
    seen.set(`${key} ${chain}`, Math.max(seen.get(`${key} ${chain}`) ?? 0, Number(packets)))
  }
  for (const prefix of bypass) {
    const key = formatPrefix(prefix)
    const chains = [...seen].filter(([name]) => name.startsWith(`${key} `))
    if (chains.length === 0) continue
    of.set(key, {
      connections: chains.reduce((sum, [, packets]) => sum + packets, 0),
      packets: undefined,
      bytes: undefined,
    })
  }
  const connections = [...of.values()].reduce((sum, one) => sum + one.connections, 0)
  return { of, total: { connections, packets: undefined, bytes: undefined } }
}
