import { LimpidError } from '../errors.ts'
import type { Family } from '../net/address.ts'
import { holdTables } from './held-tables.ts'
import type { ProbeAddresses } from './probe-network.ts'

export const TRACE_TABLE = 'limpid-doctor'
const PRIORITY = -500 // before connection tracking, and before any chain that could drop the packet
const TABLE = `inet ${TRACE_TABLE}`

/**
 * An nft table that asks the kernel to trace the packets between the probe's client and server, and no others. It goes
 * when we do.
 * @returns what removes it.
 */
export async function holdTraceTable(family: Family, { client, server }: ProbeAddresses): Promise<() => Promise<void>> {
  try {
    const held = await holdTables([TABLE], commands(family, client, server))
    return held.release
  } catch (error) {
    if (error instanceof LimpidError) return async () => {} // without a table there is no trace, and the diagnosis says less
    throw error
  }
}

function commands(family: Family, client: string, server: string): string[] {
  const ip = family === 4 ? 'ip' : 'ip6'
  const chain = (hook: string) => [
    `add chain ${TABLE} ${hook} { type filter hook ${hook} priority ${PRIORITY}; }`,
    `add rule ${TABLE} ${hook} ${ip} saddr ${client} ${ip} daddr ${server} meta nftrace set 1`,
    `add rule ${TABLE} ${hook} ${ip} saddr ${server} ${ip} daddr ${client} meta nftrace set 1`,
  ]
  return [`add table ${TABLE} { flags owner; }`, ...chain('prerouting'), ...chain('output')]
}
