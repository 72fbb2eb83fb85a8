import { writeFileSync } from 'node:fs'
import type { RulesConfig } from '../config/types.ts'
import { requireCapabilities } from '../sys/capability.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { BACKENDS, type FoundRules } from './backend.ts'
import { type JournalFile, journalOf } from './journal.ts'
import type { BackendName } from './plan.ts'
import { type KernelRoute, PolicyRouting } from './rtnetlink.ts'
import { type RulesetState, readState, refuseWhenHeld } from './state.ts'
import type { SysctlChange } from './sysctls.ts'

export interface SweepOptions {
  /** Leaves the guard of this backend, for an install that replaces it: traffic stays dropped in between. */
  readonly keepGuard?: BackendName | undefined
  /** Told in one line when the kernel is clean but the state file cannot be removed. By default Node's warning. */
  readonly onWarning?: (line: string) => void
}

/**
 * Removes what a killed run left behind: ip rules, routes, sysctls, the guard nft table. To be called at start, before the
 * host's facts are read. Rules that were installed to stay are left alone.
 * @returns what was removed, in words; empty when there was nothing.
 * @throws LimpidError LIMPID_RULES_HELD when they belong to a process that still runs.
 */
export async function sweep(rules: RulesConfig, options: SweepOptions = {}): Promise<string[]> {
  return await sweepFound(await readState(), rules, options)
}

/** As sweep(), of what has been read. */
export async function sweepFound(
  state: RulesetState,
  rules: RulesConfig,
  options: SweepOptions = {},
): Promise<string[]> {
  refuseWhenHeld(state, 'install')
  return state.persistent ? [] : await undo(state, rules, options)
}

/**
 * Removes whatever of ours is in this network namespace, under whatever names, also rules that were installed to stay.
 * @returns what was removed, in words; empty when there was nothing.
 * @throws LimpidError LIMPID_RULES_HELD when they belong to a process that still runs.
 */
export async function removeRuleset(rules: RulesConfig, options: SweepOptions = {}): Promise<string[]> {
  requireCapabilities(['CAP_NET_ADMIN'], 'remove rules')
  const state = await readState()
  refuseWhenHeld(state, 'remove')
  disown(state)
  return await undo(state, rules, options)
}

/** Before the first of the rules goes: they were to stay, and a process that works with them would put them back. */
function disown({ file, journal }: RulesetState): void {
  if (journal?.owner !== 'persistent') return
  try {
    file.write({ ...journal, ...journalOf('process', journal.rules, journal.sysctls) })
  } catch {
    // a read-only disk must not keep the rules in the kernel
  }
}

async function undo(state: RulesetState, current: RulesConfig, options: SweepOptions): Promise<string[]> {
  const removed: string[] = []
  const remove = async ({ backend, name, label }: FoundRules) => {
    await BACKENDS[backend].remove(name)
    removed.push(label)
  }
  for (const found of state.found) if (found.role === 'main') await remove(found)
  const ipRules = removeOurIpRules()
  if (ipRules > 0) removed.push(`${ipRules} ip rules`)
  const routes = removeOurRoutes()
  for (const table of new Set(routes.map((route) => route.table))) {
    removed.push(`${routes.filter((route) => route.table === table).length} routes in route table ${table}`)
  }
  removed.push(...restoreSysctls(state.journal?.sysctls ?? []))
  const kept = options.keepGuard === undefined ? undefined : BACKENDS[options.keepGuard].label(current, 'guard')
  for (const found of state.found) if (found.role === 'guard' && found.label !== kept) await remove(found)
  removeFile(state.file, options)
  return removed
}

/** Removes all ip rules with our protocol number, and no others. Says how many. @throws SyscallError */
export function removeOurIpRules(): number {
  using kernel = new PolicyRouting()
  const ours = kernel.rules()
  for (const rule of ours) kernel.deleteRule(rule)
  return ours.length
}

/** Removes our routes from whatever route table, and no others. Returns them. @throws SyscallError */
export function removeOurRoutes(): KernelRoute[] {
  using kernel = new PolicyRouting()
  const ours = kernel.routes().filter(({ isPlanned }) => isPlanned)
  for (const route of ours) kernel.deleteRoute(route)
  return ours
}

/** The kernel's part is done: a read-only disk must not make it look undone. */
function removeFile(file: JournalFile, { onWarning = (line) => process.emitWarning(line) }: SweepOptions): void {
  try {
    file.remove()
  } catch (error) {
    onWarning(`cannot remove the state file: ${(error as Error).message}`)
  }
}

/** Puts former values back, except where somebody else has changed the value since. Says what was restored. */
export function restoreSysctls(changes: readonly SysctlChange[]): string[] {
  const ours = changes.filter(({ key, value }) => readSysctl(key) === value)
  for (const { key, former } of ours) writeFileSync(sysctlPath(key), former)
  return ours.map(({ key, former }) => `sysctl ${key} back to ${former}`)
}
