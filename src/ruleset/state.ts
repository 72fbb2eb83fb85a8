import { readFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { type FoundRules, listOurRules } from './backend.ts'
import { isCleanerAlive } from './cleaner.ts'
import { isWriterAlive, type Journal, JournalFile } from './journal.ts'
import { PolicyRouting } from './rtnetlink.ts'

const NETLINK_NETFILTER = 12 // include/uapi/linux/netlink.h
const DYING_MS = 2_000 // a killed process's nft notices within milliseconds; a loaded machine may need longer
const POLL_MS = 20

/** What of ours is in this network namespace. */
export interface RulesetState {
  readonly file: JournalFile
  readonly journal: Journal | undefined
  /** Our nft tables and chains of iptables, whatever their names. */
  readonly found: readonly FoundRules[]
  /** A running process holds the rules; its pid, 0 when it cannot be found. */
  readonly holder: number | undefined
  /** Rules that were installed to stay, and are there, at least in part. */
  readonly persistent: boolean
}

/** Reads it. Waits up to 2 s for a killed process's nft table to go. */
export async function readState(): Promise<RulesetState> {
  const file = JournalFile.find()
  const deadline = performance.now() + DYING_MS
  for (;;) {
    const journal = file.read()
    const found = await listOurRules()
    const alive = journal !== undefined && journal.owner === 'process' && isWriterAlive(journal)
    const owned = found.some((rules) => rules.owned)
    const isGoing = owned || (journal?.cleaner !== undefined && isCleanerAlive(journal.cleaner))
    if (isGoing && !alive && journal !== undefined && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      continue
    }
    return {
      file,
      journal,
      found,
      holder: alive ? journal.pid : owned ? (nftHolder() ?? 0) : undefined,
      persistent: isPersistent(journal, found, owned),
    }
  }
}

function isPersistent(journal: Journal | undefined, found: readonly FoundRules[], owned: boolean) {
  // the record is lost: a table that belongs to no process was to stay; a guard always outlives its process
  if (journal === undefined) return !owned && found.some(({ role }) => role === 'main')
  if (journal.owner !== 'persistent') return false
  if (found.length > 0) return true
  using kernel = new PolicyRouting()
  return kernel.routes().some(({ isPlanned }) => isPlanned) || kernel.rules().length > 0
}

/**
 * @param verb what is refused: only installing has the choice to do without rules.
 * @throws LimpidError LIMPID_RULES_HELD when a process other than this one holds the rules.
 */
export function refuseWhenHeld(state: RulesetState, verb: 'install' | 'remove'): void {
  if (state.holder === undefined) return
  const known = state.holder !== 0
  const held = state.found.find(({ owned }) => owned) ?? state.found[0]
  const what = held === undefined ? 'the rules are' : held.backend === 'nft' ? `${held.label} is` : `${held.label} are`
  throw new LimpidError(
    'LIMPID_RULES_HELD',
    `${what} held by ${known ? `process ${state.holder}` : 'a running process'}`,
    {
      cure:
        verb === 'install'
          ? `stop that first${known ? ` (kill ${state.holder})` : ''}, or run without rules: --no-rules`
          : `limpid run${known ? ` (pid ${state.holder})` : ''} holds them and removes them when it stops${known ? `: kill ${state.holder}` : ''}`,
    },
  )
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
