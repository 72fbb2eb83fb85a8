import { SyscallError } from '../sys/errno.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from '../sys/netlink.ts'
import { attributeOf, readText } from '../sys/netlink-message.ts'
import { mustRun } from '../sys/program.ts'

// linux/netfilter/nfnetlink.h, nf_tables.h, linux/netfilter.h
const NFT_MSG_GETTABLE = (10 << 8) | 1 // NFNL_SUBSYS_NFTABLES
const NFGENMSG_BYTES = 4
const NFTA_TABLE_NAME = 1
const FAMILIES: Readonly<Record<number, string>> = { 1: 'inet', 2: 'ip', 3: 'arp', 5: 'netdev', 7: 'bridge', 10: 'ip6' }

/** An nft table, by what nft calls it: `inet limpid`. */
export interface TableName {
  readonly family: string
  readonly name: string
}

/**
 * The names of all nft tables of this network namespace: asked of the kernel, so that nft is only started for tables that are
 * there; and of nft, where the kernel does not answer us, since nft says why.
 * @throws LimpidError LIMPID_PROGRAM with nft's own words.
 */
export async function tableNames(): Promise<TableName[]> {
  return (
    namesByNetlink() ?? [...(await mustRun('nft', ['list', 'tables'])).matchAll(/^table (\S+) (\S+)$/gm)].map(asName)
  )
}

function asName([, family, name]: RegExpExecArray): TableName {
  return { family: family!, name: name! }
}

function namesByNetlink(): TableName[] | undefined {
  try {
    using socket = NetlinkSocket.open(NETLINK_NETFILTER)
    return socket.dump(NFT_MSG_GETTABLE, new Uint8Array(NFGENMSG_BYTES), 'nft tables').map(({ body }) => ({
      family: FAMILIES[body[0]!] ?? `${body[0]}`,
      name: readText(attributeOf(body, NFGENMSG_BYTES, NFTA_TABLE_NAME) ?? new Uint8Array(0)),
    }))
  } catch (error) {
    if (error instanceof SyscallError) return undefined
    throw error
  }
}
