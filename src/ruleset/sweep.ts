import { writeFileSync } from 'node:fs'
import type { RulesConfig } from '../config/types.ts'
import { requireCapabilities } from '../sys/capability.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { deleteOurRoutes, deleteOurRules } from './ip-commands.ts'
import { guardTable } from './nft.ts'
import { deleteTable } from './nft-commands.ts'
import type { SysctlChange } from './plan.ts'
import { prioritiesOf } from './policy-routing.ts'
import { type RulesetState, readState, refuseWhenHeld } from './state.ts'

export interface SweepOptions {
  /** Leaves the guard nft table, for an install that replaces it: traffic stays dropped in between. */
  readonly keepGuard?: boolean
}

/**
 * Removes what a killed run left behind: ip rules, routes, sysctls, the guard nft table. To be called at start, before the
 * host's facts are read. Rules that were installed to stay are left alone.
 * @returns what was removed, in words; empty when there was nothing.
 * @throws LimpidError LIMPID_RULES_HELD when they belong to a process that still runs.
 */
export async function sweep(rules: RulesConfig, options: SweepOptions = {}): Promise<string[]> {
  const state = await readState(rules)
  refuseWhenHeld(state, rules)
  return state.persistent ? [] : await undo(state, rules, options)
}

/**
 * Removes whatever of ours is in this network namespace, also rules that were installed to stay.
 * @returns what was removed, in words; empty when there was nothing.
 * @throws LimpidError LIMPID_RULES_HELD when they belong to a process that still runs.
 */
export async function removeRuleset(rules: RulesConfig): Promise<string[]> {
  requireCapabilities(['CAP_NET_ADMIN'], 'remove rules')
  const state = await readState(rules)
  refuseWhenHeld(state, rules)
  return await undo(state, rules)
}

async function undo(state: RulesetState, current: RulesConfig, options: SweepOptions = {}): Promise<string[]> {
  const rules = state.journal?.rules ?? current
  const removed: string[] = []
  if (state.table !== undefined) {
    await deleteTable(rules.nftTable)
    removed.push(`nft table inet ${rules.nftTable}`)
  }
  const ipRules = await deleteOurRules(prioritiesOf(rules))
  if (ipRules > 0) removed.push(`${ipRules} ip rules`)
  const routes = await deleteOurRoutes(rules.routeTable)
  if (routes > 0) removed.push(`${routes} routes in route table ${rules.routeTable}`)
  removed.push(...restoreSysctls(state.journal?.sysctls ?? []))
  if (state.guard !== undefined && options.keepGuard !== true) {
    await deleteTable(guardTable(rules))
    removed.push(`nft table inet ${guardTable(rules)}`)
  }
  state.file.remove()
  return removed
}

/** Puts former values back, except where somebody else has changed the value since. Says what was restored. */
export function restoreSysctls(changes: readonly SysctlChange[]): string[] {
  const ours = changes.filter(({ key, value }) => readSysctl(key) === value)
  for (const { key, former } of ours) writeFileSync(sysctlPath(key), former)
  return ours.map(({ key, former }) => `sysctl ${key} back to ${former}`)
}
