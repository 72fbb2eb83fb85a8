import type { RulesConfig } from '../config/types.ts'
import { type HeldTables, holdTables } from '../doctor/held-tables.ts'
import { addressKeyword } from '../ruleset/nft-match.ts'
import { markIs, SYN } from '../ruleset/nft-text.ts'
import type { Flow } from './flow.ts'

/** Begins the names of the tables: each process has its own, so that several may trace at once. */
export const TRACE_TABLE = 'limpid-trace'

const PRIORITY = -350 // before connection tracking (-200), and before any chain that is likely to drop
const BRIDGE_PRIORITY = -350 // before dstnat (-300)
const RATE = 'limit rate 10/second' // a trace of one packet is some twenty messages

/**
 * An nft table by which the kernel tells of the first packets of such flows, and of no others. Its further chains are empty:
 * that a packet passes them tells where it goes. It goes when we do.
 * @throws LimpidError LIMPID_PROGRAM with nft's own words when the kernel refuses.
 */
export async function holdTraceTable(flow: Flow, rules: RulesConfig): Promise<HeldTables> {
  const name = `${TRACE_TABLE}-${process.pid}`
  const families = flow.path === 'bridged' ? ['inet', 'bridge'] : ['inet']
  return await holdTables(
    families.map((family) => `${family} ${name}`),
    families.flatMap((family) => tableCommands(family, name, flow, rules)),
  )
}

function tableCommands(family: string, name: string, flow: Flow, rules: RulesConfig): string[] {
  const table = `${family} ${name}`
  const priority = family === 'bridge' ? BRIDGE_PRIORITY : PRIORITY
  const chain = (hook: string) => `add chain ${table} ${hook} { type filter hook ${hook} priority ${priority}; }`
  const rule = (hook: string, more: string) =>
    `add rule ${table} ${hook} ${[...tracedPackets(flow), more, RATE, 'meta nftrace set 1'].filter(Boolean).join(' ')}`
  // what we dial looks like the client's packet where the source is the client's: it is made here, and not asked about
  const made = flow.path === 'local' ? [rule('output', markIs(rules, '!=', rules.bypassMark))] : []
  return [
    `add table ${table} { flags owner; }`,
    `add table ${table}`, // before Linux 5.12; elsewhere it is refused, and changes nothing
    ...(family === 'bridge'
      ? [chain('prerouting'), rule('prerouting', ''), chain('forward')]
      : [
          ...['prerouting', 'output', 'input', 'postrouting'].map(chain),
          rule('prerouting', ''),
          ...made,
          chain('forward'),
        ]),
  ]
}

function tracedPackets({ client, destination, family, protocol }: Flow): string[] {
  const ip = addressKeyword(family)
  return [
    `${ip} saddr ${client} ${ip} daddr ${destination.address}`,
    destination.port === 0 ? `meta l4proto ${protocol}` : `${protocol} dport ${destination.port}`,
    ...(protocol === 'tcp' ? [SYN] : []),
  ]
}
