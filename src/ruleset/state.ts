import { readFileSync } from 'node:fs'
import type { RulesConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { isWriterAlive, type Journal, JournalFile } from './journal.ts'
import { guardTable } from './nft.ts'
import { isOurs, isOwned, listTable } from './nft-commands.ts'

const NETLINK_NETFILTER = 12 // include/uapi/linux/netlink.h
const DYING_MS = 2_000 // a killed process's nft notices within milliseconds; a loaded machine may need longer
const POLL_MS = 20

/** What of ours is in this network namespace. */
export interface RulesetState {
  readonly file: JournalFile
  readonly journal: Journal | undefined
  /** Stateless listings of our nft tables; undefined for one that is not there or not ours. */
  readonly table: string | undefined
  readonly guard: string | undefined
  /** A running process holds the rules; its pid, 0 when it cannot be found. */
  readonly holder: number | undefined
  /** Rules that were installed to stay. */
  readonly persistent: boolean
}

/** Reads it. Waits up to 2 s for a killed process's nft table to go. */
export async function readState(rules: RulesConfig): Promise<RulesetState> {
  const file = new JournalFile()
  const deadline = performance.now() + DYING_MS
  for (;;) {
    const journal = file.read()
    const names = journal?.rules ?? rules
    const table = oursOnly(await listTable(names.nftTable))
    const alive = journal !== undefined && journal.owner === 'process' && isWriterAlive(journal)
    const owned = table !== undefined && isOwned(table)
    if (owned && !alive && journal !== undefined && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      continue
    }
    return {
      file,
      journal,
      table,
      guard: oursOnly(await listTable(guardTable(names))),
      holder: alive ? journal.pid : owned ? (nftHolder() ?? 0) : undefined,
      persistent: journal === undefined ? table !== undefined && !owned : journal.owner === 'persistent',
    }
  }
}

/** @throws LimpidError LIMPID_RULES_HELD when a process other than this one holds the rules. */
export function refuseWhenHeld(state: RulesetState, rules: RulesConfig): void {
  if (state.holder === undefined) return
  const who = state.holder === 0 ? 'a running process' : `process ${state.holder}`
  throw new LimpidError('LIMPID_RULES_HELD', `nft table inet ${rules.nftTable} is held by ${who}`, {
    cure: `stop that first${state.holder === 0 ? '' : ` (kill ${state.holder})`}, or run without rules: --no-rules`,
  })
}

function oursOnly(listing: string | undefined): string | undefined {
  return listing !== undefined && isOurs(listing) ? listing : undefined
}

/** The pid of an nft process with an open netfilter netlink socket in this namespace (/proc/net/netlink). */
function nftHolder(): number | undefined {
  for (const line of readFileSync('/proc/thread-self/net/netlink', 'latin1').split('\n').slice(1)) {
    const [, protocol, portId] = line.trim().split(/\s+/)
    if (Number(protocol) !== NETLINK_NETFILTER) continue
    const pid = Number(portId) // the first netlink socket of a process gets its pid as its address (netlink(7))
    if (pid > 0 && pid !== process.pid && nameOf(pid) === 'nft') return pid
  }
  return undefined
}

function nameOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'latin1').trim()
  } catch {
    return undefined
  }
}
