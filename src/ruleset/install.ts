import { existsSync, writeFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { requireCapabilities } from '../sys/capability.ts'
import { errnoName, SyscallError } from '../sys/errno.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { BACKENDS, type Backend, type OwnedRules } from './backend.ts'
import { refuseClashes } from './clash.ts'
import { familySwitch } from './ip-commands.ts'
import { JournalFile, journalOf, type Owner } from './journal.ts'
import { guardTable } from './nft.ts'
import { loadText } from './nft-commands.ts'
import { isEmptyPlan, type Plan } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'
import { isSamePlan, type Restoration, repairRuleset, restoreRouting, restoreTables } from './repair.ts'
import { PolicyRouting } from './rtnetlink.ts'
import { type RulesetState, readState } from './state.ts'
import { removeOurIpRules, removeOurRoutes, removeRuleset, restoreSysctls, sweepFound } from './sweep.ts'
import { neededSysctls, type SysctlChange } from './sysctls.ts'
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
   * Puts back what is not as planned: ip rules, routes and sysctls, which is cheap to look at, and with `tables` nft tables too.
   */
  restore(options: { readonly tables: boolean }): Promise<Restoration>
  /**
   * Makes a change of nft's to its own table: elements of sets come and go.
   * @throws LimpidError LIMPID_PROGRAM with nft's own words: then nothing was changed.
   */
  change(commands: string): Promise<void>
  /**
   * Takes everything back: rules, ip rules, routes, sysctls, guard, journal. A second call does nothing. With `keepGuard` the
   * guard stays until the next install, or `limpid rules remove`.
   */
  remove(options?: { readonly keepGuard?: boolean }): Promise<void>
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
  if (!withRouting((kernel) => kernel.isLoopbackUp())) {
    throw new LimpidError('LIMPID_RULES_FAILED', 'cannot install the rules: the interface lo is down', {
      cure: 'ip link set lo up',
    })
  }
  const backend = BACKENDS[plan.backend]
  const { canOwn, notices: lacking } = await backend.probe(plan)
  const { rules } = plan
  const notices = [...plan.notes]
  let before = await readState()
  const swept = await sweepFound(before, rules, {
    keepGuard: plan.guard.length > 0 ? plan.backend : undefined,
    onWarning: (line) => notices.push(line),
  })
  if (swept.length > 0) before = await readState()
  if (before.persistent) return await alreadyInstalled(plan, before, options.owner)
  await refuseClashes(plan)
  refuseMissingCgroups(plan)

  const owned = options.owner === 'process' && canOwn
  if (options.owner === 'process') notices.push(...lacking)
  const file = JournalFile.make()
  const sysctls = sysctlsNow(plan)
  // 'persistent' only when all is done: an install that was killed half-way is to be swept
  const journal = journalOf('process', rules, sysctls)
  let ownedRules: OwnedRules | undefined
  let listing: string | undefined
  const startOwner = async () => {
    await ownedRules?.close() // of rules that were changed behind its back
    ownedRules = await backend.own(plan, (error) => options.onLost?.(error))
  }
  const guard = plan.guard.length === 0 ? undefined : guardStep(backend, plan)
  const steps: Step[] = [
    { name: `journal ${file.path}`, apply: async () => file.write(journal), undo: async () => file.remove() },
    ...(guard === undefined ? [] : [guard]),
    ...plan.routes.map((route) => ({
      name: `ip ${familySwitch(route.family)} route add ${routeArgs(route).join(' ')}`,
      apply: async () => withRouting((kernel) => kernel.addRoute(route)),
      undo: async () => removeOurRoutes(),
    })),
    ...plan.ipRules.map((rule) => ({
      name: `ip ${familySwitch(rule.family)} rule add ${ipRuleArgs(rule).join(' ')}`,
      apply: async () => withRouting((kernel) => kernel.addRule(rule)),
      undo: async () => removeOurIpRules(),
    })),
    ...sysctls.map((change) => ({
      name: `sysctl ${change.key}=${change.value}`,
      apply: async () => writeFileSync(sysctlPath(change.key), change.value),
      undo: async () => restoreSysctls([change]),
    })),
    {
      name: backend.label(rules, 'main'),
      apply: async () => {
        if (owned) await startOwner()
        else await backend.load(rules, 'main', plan.main)
      },
      undo: async () => {
        await ownedRules?.close()
        if (ownedRules === undefined || ownedRules.isShared) await backend.remove(rules.nftTable)
      },
    },
    {
      name: 'reading the rules back',
      apply: async () => {
        const [programVersion, found] = await Promise.all([backend.version(), backend.list(rules)])
        const { main: tableListing, guard: guardListing } = found
        listing = tableListing
        if (tableListing === undefined) throw new Error(`there is no ${backend.label(rules, 'main')}`)
        const { cleaner } = ownedRules ?? {}
        file.write({
          ...journal,
          ...(cleaner === undefined ? {} : { cleaner }),
          owner: options.owner,
          programVersion,
          tableListing,
          guardListing: guardListing ?? '',
        })
        const [first] = await verifyRuleset(plan, found)
        if (first !== undefined) throw new Error(describeDifference(first))
      },
      undo: async () => {},
    },
  ]
  // a guard that a killed run left drops what is closed, also when this start fails
  await applyAll(steps, before.found.some(({ role }) => role === 'guard') ? guard : undefined)
  let removing: Promise<void> | undefined
  return {
    summary: `ruleset installed (${describeRules(plan, listing)})`,
    already: false,
    notices,
    verify: () => verifyRuleset(plan),
    restore: ({ tables }) =>
      restore(plan, tables, ownedRules === undefined || ownedRules.isShared ? undefined : startOwner),
    change: (commands) => ownedRules?.change?.(commands) ?? loadText(commands),
    remove: ({ keepGuard = false } = {}) => {
      removing ??= undoAll(removalOrder(keepGuard ? steps.filter((step) => step !== guard) : steps))
      return removing
    },
  }
}

function withRouting<T>(work: (kernel: PolicyRouting) => T): T {
  using kernel = new PolicyRouting()
  return work(kernel)
}

/** The plan may have been made while the values of a killed run were still there. */
function sysctlsNow(plan: Plan): SysctlChange[] {
  const planned = plan.sysctls.map((change) => ({ ...change, former: readSysctl(change.key) ?? change.former }))
  const needed = neededSysctls(plan.interceptions, plan.workers, readSysctl)
  return [...planned, ...needed.filter(({ key }) => !planned.some((change) => change.key === key))]
}

async function restore(plan: Plan, tables: boolean, loadMain: (() => Promise<void>) | undefined): Promise<Restoration> {
  const routing = restoreRouting(plan)
  if (!tables) return routing
  const rest = await restoreTables(plan, loadMain)
  return {
    differences: [...routing.differences, ...rest.differences],
    failure: routing.failure ?? rest.failure,
  }
}

/** nft and iptables look a cgroup up when they load a rule: it must be there. */
function refuseMissingCgroups({ interceptions }: Plan): void {
  for (const { listener } of interceptions) {
    const missing = [...listener.match.cgroups, ...listener.exclude.cgroups].find(
      (path) => !existsSync(`/sys/fs/cgroup/${path}`),
    )
    if (missing === undefined) continue
    throw new LimpidError('LIMPID_RULES_FAILED', `listener ${listener.name}: there is no cgroup ${missing}`, {
      cure: 'start what runs in it first, or see what there is below /sys/fs/cgroup',
    })
  }
}

function guardStep(backend: Backend, { rules, guard }: Plan): Step {
  return {
    name: backend.label(rules, 'guard'),
    apply: () => backend.load(rules, 'guard', guard), // in one transaction: what a killed run left never opens in between
    undo: () => backend.remove(guardTable(rules)),
  }
}

/** The nft table, ip rules, routes and sysctls first; the guard only when nothing is taken any more; the journal last. */
function removalOrder(steps: readonly Step[]): Step[] {
  const [journal, ...others] = steps
  return [...others.reverse(), journal!]
}

/** `kept`: what was there before and goes on doing its work when something fails. */
async function applyAll(steps: readonly Step[], kept: Step | undefined): Promise<void> {
  const done: Step[] = []
  for (const step of steps) {
    if (step !== kept) done.unshift(step)
    try {
      await step.apply()
    } catch (error) {
      const undone = await undoAll(done).then(
        () => 'nothing is left of it',
        (failure: Error) => `undoing the rest failed too: ${failure.message}`,
      )
      const cure = error instanceof LimpidError ? error.cure : undefined
      const { message } = error as Error
      const isNamed = error instanceof SyscallError && message.includes(step.name)
      const words = isNamed ? errnoName(error.errno) : message
      const why = `${step.name}: ${words}`
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
    const names = before.found.map(({ label }) => label).join(', ')
    throw new LimpidError(
      'LIMPID_RULES_CLASH',
      `rules of other settings are installed to stay${names === '' ? '' : ` (${names})`}`,
      { cure: 'limpid rules remove first' },
    )
  }
  const differences = await verifyRuleset(plan)
  if (differences.length > 0) {
    await refuseClashes(plan)
    await repairRuleset(plan, before)
  }
  const { main } = await BACKENDS[plan.backend].list(plan.rules)
  return {
    summary: `ruleset ${differences.length > 0 ? 'repaired' : 'already installed'} (${describeRules(plan, main)})`,
    already: true,
    notices: [...plan.notes, ...differences.map((difference) => `repaired: ${describeDifference(difference)}`)],
    verify: () => verifyRuleset(plan),
    restore: async ({ tables }) => {
      const failure = before.journal === undefined ? undefined : removedMeanwhile() // without one somebody typed them
      return failure === undefined ? await restore(plan, tables, undefined) : { differences: [], failure }
    },
    change: loadText,
    remove: async () => {
      if (owner === 'persistent') await removeRuleset(plan.rules)
    },
  }
}

/** Rules that were to stay are the operator's: whoever removes them by our own command does not get them back. */
function removedMeanwhile(): LimpidError | undefined {
  if (JournalFile.find().read()?.owner === 'persistent') return undefined
  return new LimpidError('LIMPID_RULES_FAILED', 'they were removed by `limpid rules remove`', {
    cure: 'stop this process and start it again',
  })
}

function nothingToInstall(): InstalledRuleset {
  return {
    summary: 'no rules needed',
    already: false,
    notices: [],
    verify: async () => [],
    restore: async () => ({ differences: [], failure: undefined }),
    change: async () => {},
    remove: async () => {},
  }
}

function describeRules({ backend: name, rules }: Plan, listing: string | undefined): string {
  const backend = BACKENDS[name]
  return `${backend.label(rules, 'main')}, ${backend.countRules(listing ?? '')} rules`
}
