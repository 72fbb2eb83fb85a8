import { writeFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { requireCapabilities } from '../sys/capability.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { refuseClashes } from './clash.ts'
import { addRoute, addRule, deleteOurRoutes, deleteOurRules, familySwitch, isLoopbackUp } from './ip-commands.ts'
import { JournalFile, journalOf, type Owner } from './journal.ts'
import { guardTable, ownedText } from './nft.ts'
import { countRules, deleteTable, listTable, loadText, nftVersion } from './nft-commands.ts'
import { TableOwner } from './owner.ts'
import { isEmptyPlan, type Plan } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'
import { probeKernel } from './probe.ts'
import { isSamePlan, repairRuleset, replacingText } from './repair.ts'
import { type RulesetState, readState } from './state.ts'
import { removeRuleset, restoreSysctls, type SweepOptions, sweep } from './sweep.ts'
import { type Difference, describeDifference, verifyRuleset } from './verify.ts'

export interface InstallOptions {
  /** `process`: the rules go when this process does, however it ends. `persistent`: they stay until they are removed. */
  readonly owner: Owner
  /** Called once when the nft table is lost although `remove` was not called. */
  readonly onLost?: (error: LimpidError) => void
}

export interface InstalledRuleset {
  /** `ruleset installed (nft table inet limpid, 7 rules)`, or `already installed`, `repaired`, or `no rules needed`. */
  readonly summary: string
  /** The same rules were there to stay before this call; then a `process` leaves them there. */
  readonly already: boolean
  readonly notices: readonly string[]
  verify(): Promise<Difference[]>
  /**
   * Takes everything back: nft table, ip rules, routes, sysctls, guard, journal. A second call does nothing.
   * With `keepGuard` the guard stays, for an install that follows at once and replaces it.
   */
  remove(options?: SweepOptions): Promise<void>
}

interface Step {
  readonly name: string
  readonly apply: () => Promise<void>
  readonly undo: () => Promise<unknown>
}

/**
 * Puts a plan into the kernel of the calling thread's network namespace: all of it, or nothing. Sweeps first what a killed
 * run left behind. Nothing is changed when the kernel lacks a feature or something of somebody else is in the way.
 * @throws LimpidError LIMPID_CAPABILITY, LIMPID_KERNEL, LIMPID_PROGRAM, LIMPID_RULES_HELD, LIMPID_RULES_CLASH before any
 *   change; LIMPID_RULES_FAILED, which names the step, when the kernel refuses one: all steps before it are undone then.
 */
export async function installRuleset(plan: Plan, options: InstallOptions): Promise<InstalledRuleset> {
  if (isEmptyPlan(plan)) return nothingToInstall()
  requireCapabilities(['CAP_NET_ADMIN'], 'install rules')
  if (!(await isLoopbackUp())) {
    throw new LimpidError('LIMPID_RULES_FAILED', 'cannot install the rules: the interface lo is down', {
      cure: 'ip link set lo up',
    })
  }
  const { owner: canOwn } = await probeKernel()
  const { rules } = plan
  const notices = [...plan.notes]
  await sweep(rules, { keepGuard: plan.guardText !== undefined, onWarning: (line) => notices.push(line) })
  const before = await readState()
  if (before.persistent) return await alreadyInstalled(plan, before, options.owner)
  await refuseClashes(plan)

  const owned = options.owner === 'process' && canOwn
  if (options.owner === 'process' && !canOwn) {
    notices.push(
      'this kernel cannot tie an nft table to a process (Linux 5.12 can): after a kill the rules stay until the next start',
    )
  }
  const file = JournalFile.make()
  const sysctls = plan.sysctls.map((change) => ({ ...change, former: readSysctl(change.key) ?? change.former }))
  // 'persistent' only when all is done: an install that was killed half-way is to be swept
  const journal = journalOf('process', rules, sysctls)
  let tableOwner: TableOwner | undefined
  const guard = plan.guardText === undefined ? undefined : guardStep(guardTable(rules), plan.guardText)
  const steps: Step[] = [
    { name: `journal ${file.path}`, apply: async () => file.write(journal), undo: async () => file.remove() },
    ...(guard === undefined ? [] : [guard]),
    ...plan.routes.map((route) => ({
      name: `ip ${familySwitch(route.family)} route add ${routeArgs(route).join(' ')}`,
      apply: () => addRoute(route),
      undo: () => deleteOurRoutes(),
    })),
    ...plan.ipRules.map((rule) => ({
      name: `ip ${familySwitch(rule.family)} rule add ${ipRuleArgs(rule).join(' ')}`,
      apply: () => addRule(rule),
      undo: () => deleteOurRules(),
    })),
    ...sysctls.map((change) => ({
      name: `sysctl ${change.key}=${change.value}`,
      apply: async () => writeFileSync(sysctlPath(change.key), change.value),
      undo: async () => restoreSysctls([change]),
    })),
    {
      name: `nft table inet ${rules.nftTable}`,
      apply: async () => {
        if (!owned) return await loadText(plan.nftText)
        tableOwner = await TableOwner.start(ownedText(plan.nftText), rules.nftTable, (error) => options.onLost?.(error))
      },
      undo: async () => (tableOwner === undefined ? await deleteTable(rules.nftTable) : await tableOwner.close()),
    },
    {
      name: 'reading the rules back',
      apply: async () => {
        const [nft, tableListing, guardListing] = await Promise.all([
          nftVersion(),
          listTable(rules.nftTable),
          listTable(guardTable(rules)),
        ])
        if (tableListing === undefined) throw new Error(`there is no nft table inet ${rules.nftTable}`)
        file.write({
          ...journal,
          owner: options.owner,
          nftVersion: nft,
          tableListing,
          guardListing: guardListing ?? '',
        })
        const differences = await verifyRuleset(plan)
        const [first] = differences
        if (first !== undefined) throw new Error(describeDifference(first))
      },
      undo: async () => {},
    },
  ]
  await applyAll(steps)
  let removing: Promise<void> | undefined
  return {
    summary: `ruleset installed (${await describeTable(rules.nftTable)})`,
    already: false,
    notices,
    verify: () => verifyRuleset(plan),
    remove: ({ keepGuard = false } = {}) => {
      const undone = keepGuard ? steps.filter((step) => step !== guard) : steps
      removing ??= undoAll(removalOrder(undone))
      return removing
    },
  }
}

function guardStep(name: string, text: string): Step {
  // in one transaction: a guard that a killed run left never opens in between
  return {
    name: `nft table inet ${name}`,
    apply: () => loadText(replacingText(name, text)),
    undo: () => deleteTable(name),
  }
}

/** The nft table, ip rules, routes and sysctls first; the guard only when nothing is taken any more; the journal last. */
function removalOrder(steps: readonly Step[]): Step[] {
  const [journal, ...others] = steps
  return [...others.reverse(), journal!]
}

async function applyAll(steps: readonly Step[]): Promise<void> {
  const done: Step[] = []
  for (const step of steps) {
    done.unshift(step)
    try {
      await step.apply()
    } catch (error) {
      const undone = await undoAll(done).then(
        () => 'nothing is left of it',
        (failure: Error) => `undoing the rest failed too: ${failure.message}`,
      )
      const cure = error instanceof LimpidError ? error.cure : undefined
      const { message } = error as Error
      const why = message.startsWith(`${step.name}: `) ? message : `${step.name}: ${message}` // ip's say it themselves
      const what = `cannot install the rules: ${why} (${undone})`
      throw new LimpidError('LIMPID_RULES_FAILED', what, { cause: error, cure })
    }
  }
}

/** Undoes every step, in the order given, whatever fails on the way; then throws the first failure. */
async function undoAll(steps: readonly Step[]): Promise<void> {
  const failures: unknown[] = []
  for (const step of steps) await step.undo().catch((error: unknown) => failures.push(error))
  if (failures.length > 0) throw failures[0]
}

/** Rules are there to stay: those of this plan are used, and repaired where they were damaged. */
async function alreadyInstalled(plan: Plan, before: RulesetState, owner: Owner): Promise<InstalledRuleset> {
  if (!isSamePlan(before, plan)) {
    const names = before.tables.map(({ name }) => `nft table inet ${name}`).join(', ')
    throw new LimpidError(
      'LIMPID_RULES_CLASH',
      `rules of other settings are installed to stay${names === '' ? '' : ` (${names})`}`,
      { cure: 'limpid rules remove first' },
    )
  }
  const differences = await verifyRuleset(plan)
  if (differences.length > 0) {
    await refuseClashes(plan)
    await repairRuleset(plan, before, differences)
  }
  return {
    summary: `ruleset ${differences.length > 0 ? 'repaired' : 'already installed'} (${await describeTable(plan.rules.nftTable)})`,
    already: true,
    notices: [...plan.notes, ...differences.map((difference) => `repaired: ${describeDifference(difference)}`)],
    verify: () => verifyRuleset(plan),
    remove: async () => {
      if (owner === 'persistent') await removeRuleset(plan.rules)
    },
  }
}

function nothingToInstall(): InstalledRuleset {
  return {
    summary: 'no rules needed',
    already: false,
    notices: [],
    verify: async () => [],
    remove: async () => {},
  }
}

async function describeTable(name: string): Promise<string> {
  const listing = await listTable(name)
  return `nft table inet ${name}, ${countRules(listing ?? '')} rules`
}
