import { LimpidError } from '../errors.ts'
import { Allowance } from '../relay/allowance.ts'
import { BACKENDS } from '../ruleset/backend.ts'
import { type InstalledRuleset, installRuleset } from '../ruleset/install.ts'
import type { Plan } from '../ruleset/plan.ts'
import { RuleWatch, type Suspect, watchedNames } from '../ruleset/rule-watch.ts'
import type { Difference } from '../ruleset/verify.ts'
import { ENETDOWN, SyscallError } from '../sys/errno.ts'
import { KernelBypass } from './kernel-bypass.ts'
import { Restorations } from './restorations.ts'

const QUIET_MS = 10 // whoever removes rules removes several
const AT_MOST_MS = 50
const POLL_MS = 2_000 // sysctls and a few others change without a message
const RESTORATIONS_AT_ONCE = 20
const RESTORE_EVERY_MS = 1_000 // while somebody keeps removing them
const MIN_TABLE_PAUSE_MS = 50 // after looking at nft tables in vain, doubled each time
const MAX_TABLE_PAUSE_MS = 2_000
const GIVE_UP_MS = 60_000

/** The rules of a running proxy: installed, watched, and put back where somebody changes them. */
export class KeptRules {
  readonly #restorations: Restorations
  readonly #pace = new Allowance(RESTORATIONS_AT_ONCE, RESTORE_EVERY_MS)
  /** What is to be looked at, and since when. */
  readonly #suspects = new Map<Suspect, number>()
  readonly #plan: Plan
  #installed: InstalledRuleset | undefined
  #bypass: KernelBypass | undefined
  #watch: RuleWatch | undefined
  #poll: NodeJS.Timeout | undefined
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> | undefined
  #tablesNotBefore = 0
  #tablePauseMs = MIN_TABLE_PAUSE_MS
  #failingSince: number | undefined
  #tablesFail = false
  #isRemoved = false
  #fail: (error: unknown) => void = () => {}
  /** Rejects when the rules cannot be brought back for a minute. */
  readonly failed: Promise<never>

  private constructor(plan: Plan, note: (line: string) => void) {
    this.#plan = plan
    this.#restorations = new Restorations(note)
    this.failed = new Promise((_, reject) => {
      this.#fail = reject
    })
    this.failed.catch(() => {}) // also when nobody waits for it: the drain is under way
  }

  /** @throws LimpidError as installRuleset(): then nothing is changed. */
  static async install(plan: Plan, note: (line: string) => void): Promise<KeptRules> {
    const rules = new KeptRules(plan, note)
    const installed = await installRuleset(plan, { owner: 'process', onLost: () => rules.#suspectTables() })
    rules.#installed = installed
    rules.#bypass = new KernelBypass(plan, (commands) => installed.change(commands), note)
    // what an earlier process added to rules that were installed to stay, and could not take back
    if (installed.already) await rules.#bypass.withdraw()
    try {
      rules.#watch = new RuleWatch(watchedNames(plan), (suspect) => rules.#suspect(suspect))
    } catch (error) {
      await installed.remove()
      throw error
    }
    // the older iptables changes its tables without a message
    const isSilent = plan.backend === 'iptables' && !(await BACKENDS.iptables.version()).includes('nf_tables')
    rules.#poll = setInterval(() => rules.#suspect(isSilent ? 'tables' : 'routing'), POLL_MS).unref()
    rules.#suspect('routing') // what was changed before we listened
    for (const notice of installed.notices) note(notice)
    return rules
  }

  /** `ruleset installed (nft table inet limpid, 7 rules)`. */
  get summary(): string {
    return this.#installed?.summary ?? ''
  }

  /** How many times rules were put back. */
  get restorations(): number {
    return this.#restorations.count
  }

  /** The destinations that the kernel forwards by itself; what is asked of it ends with the rules. */
  get kernelBypass(): KernelBypass {
    return this.#bypass!
  }

  /** As InstalledRuleset.change(). */
  async change(commands: string): Promise<void> {
    await this.#installed!.change(commands)
  }

  /** With `keepGuard` what closed listeners should take stays dropped. */
  async remove(options: { readonly keepGuard: boolean }): Promise<void> {
    this.#isRemoved = true
    clearInterval(this.#poll)
    clearTimeout(this.#timer)
    this.#watch?.[Symbol.dispose]()
    await this.#looking
    // rules that stay are gone meanwhile, where the operator removed them
    if (this.#installed?.already === true) await this.#bypass?.withdraw().catch(() => {})
    this.#bypass?.[Symbol.dispose]()
    this.#restorations.close()
    await this.#installed?.remove(options)
  }

  /** The process that holds the nft table has ended: no doubt about it. */
  #suspectTables(): void {
    this.#tablesNotBefore = 0
    this.#suspect('tables')
  }

  #suspect(suspect: Suspect): void {
    if (this.#isRemoved) return
    if (!this.#suspects.has(suspect)) this.#suspects.set(suspect, performance.now())
    if (this.#looking === undefined) this.#lookSoon()
  }

  #lookSoon(): void {
    const now = performance.now()
    const dueAt = [...this.#suspects].map(([suspect, since]) =>
      Math.max(Math.min(now + QUIET_MS, since + AT_MOST_MS), suspect === 'tables' ? this.#tablesNotBefore : 0),
    )
    clearTimeout(this.#timer)
    this.#timer = setTimeout(
      () => {
        this.#looking = this.#look().finally(() => {
          this.#looking = undefined
          if (this.#suspects.size > 0 && !this.#isRemoved) this.#lookSoon()
        })
      },
      Math.max(0, Math.min(...dueAt) - now, this.#pace.waitMs(now)),
    )
  }

  async #look(): Promise<void> {
    const tables = this.#suspects.has('tables') && performance.now() >= this.#tablesNotBefore
    const looked: Suspect[] = tables ? ['routing', 'tables'] : ['routing']
    const since = Math.min(...looked.map((suspect) => this.#suspects.get(suspect) ?? Number.POSITIVE_INFINITY))
    for (const suspect of looked) this.#suspects.delete(suspect) // what comes meanwhile is looked at again
    const { differences, failure } = await this.#installed!.restore({ tables })
    await this.#restoreBypass(differences)
    const now = performance.now()
    const isRestored = differences.length > 0 && failure === undefined
    if (tables) this.#pauseTables(isRestored, now)
    if (differences.length > 0 || failure !== undefined) this.#pace.take(now)
    if (isRestored) this.#restorations.restored(differences, now - since)
    if (tables) this.#tablesFail = failure !== undefined
    if (failure !== undefined) this.#onFailure(failure, tables, now)
    // ip rules that are well say nothing about tables that could not be put back
    else if (!this.#tablesFail) this.#failingSince = undefined
  }

  /** Rules that were loaded anew have the configured prefixes alone. */
  async #restoreBypass(differences: readonly Difference[]): Promise<void> {
    const label = BACKENDS[this.#plan.backend].label(this.#plan.rules, 'main')
    if (!differences.some(({ what }) => what === label)) return
    // what cannot be put back now is, with the rules, by the next look
    await this.#bypass?.reload().catch(() => this.#suspect('tables'))
  }

  /** Our own changes and those that changed nothing in the end make tables suspect, too. */
  #pauseTables(found: boolean, now: number): void {
    const isLongAgo = now - this.#tablesNotBefore > MAX_TABLE_PAUSE_MS
    this.#tablePauseMs = found || isLongAgo ? MIN_TABLE_PAUSE_MS : Math.min(this.#tablePauseMs * 2, MAX_TABLE_PAUSE_MS)
    this.#tablesNotBefore = found ? now : now + this.#tablePauseMs
  }

  #onFailure(failure: unknown, tables: boolean, now: number): void {
    // routes to lo come back with it
    const isLoDown = failure instanceof SyscallError && failure.errno === ENETDOWN
    this.#restorations.failed(isLoDown ? 'the interface lo is down' : (failure as Error).message)
    if (tables) this.#suspects.set('tables', now)
    this.#failingSince ??= now
    if (isLoDown) this.#failingSince = undefined
    else if (now - this.#failingSince > GIVE_UP_MS) {
      this.#fail(
        new LimpidError(
          'LIMPID_RULES_FAILED',
          `the rules cannot be restored since ${GIVE_UP_MS / 1_000} s: ${(failure as Error).message}`,
          { cause: failure, cure: failure instanceof LimpidError ? failure.cure : undefined },
        ),
      )
    }
  }
}
