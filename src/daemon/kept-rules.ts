import { LimpidError } from '../errors.ts'
import { type InstalledRuleset, installRuleset } from '../ruleset/install.ts'
import type { Plan } from '../ruleset/plan.ts'

/** Rules that are lost again so soon after they were brought back: somebody does that on purpose. */
const MIN_KEPT_MS = 10_000

/** The rules of a running proxy: installed, and installed again when their nft process is killed. */
export class KeptRules {
  readonly #plan: Plan
  readonly #note: (line: string) => void
  #installed: InstalledRuleset | undefined
  #repairedAt = Number.NEGATIVE_INFINITY
  #repair: Promise<void> | undefined
  #isRemoved = false
  #fail: (error: unknown) => void = () => {}
  /** Rejects when the rules are lost and cannot be brought back. */
  readonly failed: Promise<never>

  private constructor(plan: Plan, note: (line: string) => void) {
    this.#plan = plan
    this.#note = note
    this.failed = new Promise((_, reject) => {
      this.#fail = reject
    })
    this.failed.catch(() => {}) // also when nobody waits for it: the drain is under way
  }

  /** @throws LimpidError as installRuleset(): then nothing is changed. */
  static async install(plan: Plan, note: (line: string) => void): Promise<KeptRules> {
    const rules = new KeptRules(plan, note)
    await rules.#install()
    for (const notice of rules.#installed?.notices ?? []) note(notice)
    return rules
  }

  /** `ruleset installed (nft table inet limpid, 7 rules)`. */
  get summary(): string {
    return this.#installed?.summary ?? ''
  }

  async remove(): Promise<void> {
    this.#isRemoved = true
    await this.#repair
    await this.#installed?.remove()
  }

  async #install(): Promise<void> {
    this.#installed = await installRuleset(this.#plan, { owner: 'process', onLost: (error) => this.#onLost(error) })
  }

  #onLost(error: LimpidError): void {
    if (this.#isRemoved) return
    if (performance.now() - this.#repairedAt < MIN_KEPT_MS) {
      this.#fail(
        new LimpidError('LIMPID_RULES_FAILED', `${error.message}, again within ${MIN_KEPT_MS / 1000} s`, {
          cause: error,
        }),
      )
      return
    }
    this.#note(`${error.message}: installing the rules again`)
    this.#repair = this.#reinstall().then(
      () => this.#note(this.summary),
      (failure: unknown) => this.#fail(failure),
    )
  }

  async #reinstall(): Promise<void> {
    // what is left besides the table: ip rules, routes, the journal; a guard goes on dropping what is not taken
    await this.#installed?.remove({ keepGuard: true })
    await this.#install()
    this.#repairedAt = performance.now()
  }
}
