import { LimpidError } from '../errors.ts'
import { EEXIST, SyscallError } from '../sys/errno.ts'
import { BACKENDS, type Backend, type Role, scriptsText } from './backend.ts'
import { JournalFile, journalOf } from './journal.ts'
import { guardTable } from './nft.ts'
import type { Plan } from './plan.ts'
import { PolicyRouting } from './rtnetlink.ts'
import type { RulesetState } from './state.ts'
import {
  type Difference,
  describeDifference,
  verifyRouting,
  verifyRuleset,
  verifyTables,
  withoutMend,
} from './verify.ts'

/** Whether the rules that were installed to stay, whatever is left of them, were made from the settings of this plan. */
export function isSamePlan({ journal, found }: RulesetState, plan: Plan): boolean {
  const backend = BACKENDS[plan.backend]
  const digests = [backend.digest(scriptsText(plan.main)), backend.digest(scriptsText(plan.guard))]
  if (journal === undefined) return found.every(({ digest }) => digests.includes(digest))
  const { nftTable, routeTable, rulePriority } = journal.rules
  return (
    nftTable === plan.rules.nftTable &&
    routeTable === plan.rules.routeTable &&
    rulePriority === plan.rules.rulePriority &&
    backend.digest(journal.tableListing) === digests[0] &&
    backend.digest(journal.guardListing) === digests[1]
  )
}

/**
 * Brings rules that were installed to stay back to their plan: what is as planned is not touched, an nft table is replaced
 * in one transaction.
 * @throws LimpidError LIMPID_RULES_FAILED when they differ afterwards, or the kernel refuses.
 */
export async function repairRuleset(plan: Plan, state: RulesetState): Promise<void> {
  const backend = BACKENDS[plan.backend]
  const file = state.journal === undefined ? JournalFile.make() : state.file
  try {
    for (const { failure } of [await restoreTables(plan), restoreRouting(plan)])
      if (failure !== undefined) throw failure
    const { main, guard } = await backend.list(plan.rules)
    file.write({
      ...journalOf('persistent', plan.rules, state.journal?.sysctls ?? []),
      programVersion: await backend.version(),
      tableListing: main ?? '',
      guardListing: plan.guard.length === 0 ? '' : (guard ?? ''),
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

/** What was not as planned, and the first reason for which something still is not. */
export interface Restoration {
  readonly differences: readonly Difference[]
  readonly failure: unknown
}

/**
 * Puts back the ip rules, routes and sysctls that are not as planned, as far as the kernel lets us. By netlink, in less than a
 * millisecond, and synchronous: nothing of ours comes in between.
 */
export function restoreRouting(plan: Plan): Restoration {
  let failure: unknown
  try {
    using kernel = new PolicyRouting()
    const differences = verifyRouting(plan, kernel)
    for (const difference of differences) {
      try {
        difference.mend()
      } catch (error) {
        const mendedMeanwhile = error instanceof SyscallError && error.errno === EEXIST
        if (!mendedMeanwhile) failure ??= error
      }
    }
    return { differences: differences.map(withoutMend), failure }
  } catch (error) {
    return { differences: [], failure: error }
  }
}

/**
 * Replaces the nft tables that are not as planned, each in one transaction.
 * @param loadMain loads the table that brings packets to listeners, when a transaction of its own does not do; there is none
 *   of that name then.
 */
export async function restoreTables(plan: Plan, loadMain?: () => Promise<void>): Promise<Restoration> {
  const { rules } = plan
  const backend = BACKENDS[plan.backend]
  let differences: Difference[] = []
  try {
    differences = await verifyTables(plan)
    // the guard first: it drops what is not taken meanwhile
    for (const role of ['guard', 'main'] as const) {
      const difference = differences.find(({ what }) => what === backend.label(rules, role))
      if (difference === undefined) continue
      const isThere = difference.found !== undefined || difference.expected !== difference.what
      if (isThere) await refuseForeign(backend, plan, role)
      const reloads = role === 'main' && loadMain !== undefined
      if (plan[role].length === 0 || reloads) await backend.remove(role === 'main' ? rules.nftTable : guardTable(rules))
      if (reloads) await loadMain()
      else if (plan[role].length > 0) await backend.load(rules, role, plan[role])
    }
    return { differences, failure: undefined }
  } catch (error) {
    return { differences, failure: error }
  }
}

async function refuseForeign(backend: Backend, { rules }: Plan, role: Role): Promise<void> {
  if (!(await backend.isForeign(rules, role))) return
  const label = backend.label(rules, role)
  throw new LimpidError('LIMPID_RULES_CLASH', `an ${label} of somebody else is in its place`, {
    cure: `${label.replace('nft ', 'nft delete ')}, or set rules.nftTable to another name`,
  })
}
