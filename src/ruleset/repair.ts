import { writeFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { sysctlPath } from '../sys/host.ts'
import { addRoute, addRule, deleteRoute, deleteRule, listOurRoutes, listRules } from './ip-commands.ts'
import { JournalFile, journalOf } from './journal.ts'
import { guardTable, tableDigest } from './nft.ts'
import { deleteTable, isOurs, listTable, loadText, nftVersion } from './nft-commands.ts'
import type { Plan } from './plan.ts'
import { ipRuleArgs } from './policy-routing.ts'
import type { RulesetState } from './state.ts'
import { type Difference, describeDifference, verifyRuleset } from './verify.ts'

/** Whether the rules that were installed to stay, whatever is left of them, were made from the settings of this plan. */
export function isSamePlan({ journal, tables }: RulesetState, plan: Plan): boolean {
  const digests = [tableDigest(plan.nftText), tableDigest(plan.guardText ?? '')]
  if (journal === undefined) return tables.every(({ listing }) => digests.includes(tableDigest(listing)))
  const { nftTable, routeTable, rulePriority } = journal.rules
  return (
    nftTable === plan.rules.nftTable &&
    routeTable === plan.rules.routeTable &&
    rulePriority === plan.rules.rulePriority &&
    tableDigest(journal.tableListing) === digests[0] &&
    tableDigest(journal.guardListing) === digests[1]
  )
}

/**
 * Brings rules that were installed to stay back to their plan: what is as planned is not touched, an nft table is replaced
 * in one transaction.
 * @throws LimpidError LIMPID_RULES_FAILED when they differ afterwards, or the kernel refuses.
 */
export async function repairRuleset(
  plan: Plan,
  state: RulesetState,
  differences: readonly Difference[],
): Promise<void> {
  const file = state.journal === undefined ? JournalFile.make() : state.file
  try {
    await repairTables(plan, differences)
    await repairRoutes(plan)
    await repairIpRules(plan)
    const sysctls = state.journal?.sysctls ?? []
    for (const { key, value } of sysctls) {
      if (differences.some(({ what }) => what === `sysctl ${key}`)) writeFileSync(sysctlPath(key), value)
    }
    file.write({
      ...journalOf('persistent', plan.rules, sysctls),
      nftVersion: await nftVersion(),
      tableListing: (await listTable(plan.rules.nftTable)) ?? '',
      guardListing: plan.guardText === undefined ? '' : ((await listTable(guardTable(plan.rules))) ?? ''),
    })
    const [left] = await verifyRuleset(plan)
    if (left !== undefined) throw new Error(describeDifference(left))
  } catch (error) {
    throw new LimpidError('LIMPID_RULES_FAILED', `cannot repair the rules: ${(error as Error).message}`, {
      cause: error,
      cure: 'limpid rules remove, then install them again',
    })
  }
}

/** The text as a transaction that puts it in the place of a table of that name, if there is one. */
export function replacingText(name: string, text: string): string {
  return `table inet ${name}\ndelete table inet ${name}\n${text}`
}

async function repairTables({ rules, nftText, guardText }: Plan, differences: readonly Difference[]): Promise<void> {
  const guard = guardTable(rules)
  for (const [name, text] of [
    [guard, guardText],
    [rules.nftTable, nftText],
  ] as const) {
    if (!differences.some(({ what }) => what === `nft table inet ${name}`)) continue
    if (text !== undefined) await loadText(replacingText(name, text))
    else if (isOurs((await listTable(name)) ?? '')) await deleteTable(name)
  }
}

async function repairRoutes(plan: Plan): Promise<void> {
  const found = await listOurRoutes()
  const isIn = (routes: typeof found, { family, table }: (typeof found)[number]) =>
    routes.some((route) => route.family === family && route.table === table)
  for (const route of found) if (!isIn([...plan.routes], route)) await deleteRoute(route)
  for (const route of plan.routes) if (!isIn(found, route)) await addRoute(route)
}

async function repairIpRules(plan: Plan): Promise<void> {
  const found = (await listRules()).filter(({ ours }) => ours)
  const planned = plan.ipRules.map((rule) => ({ rule, family: rule.family, text: ipRuleArgs(rule).join(' ') }))
  const key = ({ family, text }: { family: number; text: string }) => `-${family} ${text}`
  const [foundKeys, plannedKeys] = [found.map(key), planned.map(key)]
  for (const rule of found) if (!plannedKeys.includes(key(rule))) await deleteRule(rule)
  for (const wanted of planned) if (!foundKeys.includes(key(wanted))) await addRule(wanted.rule)
}
