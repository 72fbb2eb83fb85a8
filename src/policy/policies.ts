import type { PolicyConfig } from '../config/policy-types.ts'
import type { Timeouts } from '../config/types.ts'
import { LoadedPolicy } from './loaded-policy.ts'
import type { Policy } from './policy.ts'
import { Shadow, type ShadowCounts } from './shadow.ts'

/** The policy that decides flows, and the one that is only asked; they change together. */
export class Policies {
  /** Undefined: every flow goes on as its listener says, and nobody compares. */
  readonly live: Policy | undefined
  readonly shadow: Shadow | undefined
  readonly #live: LoadedPolicy
  readonly #candidate: LoadedPolicy | undefined

  private constructor(
    live: LoadedPolicy,
    isAsked: boolean,
    candidate: LoadedPolicy | undefined,
    shadow: Shadow | undefined,
  ) {
    this.#live = live
    this.#candidate = candidate
    this.shadow = shadow
    this.live = live.isOpen && !isAsked && shadow === undefined ? undefined : live.policy
  }

  /** `isAsked`: also where every flow goes on as its listener says. @throws ListError with what is wrong with a list of either; then nothing is open. */
  static async open(
    {
      policy,
      shadow,
      isAsked,
    }: { readonly policy: PolicyConfig; readonly shadow?: PolicyConfig | undefined; readonly isAsked: boolean },
    counts: ShadowCounts,
    note: (line: string) => void,
  ): Promise<Policies> {
    const live = await LoadedPolicy.open(policy, note)
    if (shadow === undefined) return new Policies(live, isAsked, undefined, undefined)
    try {
      const candidate = await LoadedPolicy.open(shadow, (line) => note(`shadow: ${line}`))
      return new Policies(live, isAsked, candidate, new Shadow(candidate.policy, counts, note))
    } catch (error) {
      await live.close()
      throw error
    }
  }

  /** The servers that rules of the live policy share flows among. */
  get pools(): PolicyConfig['pools'] {
    return this.#live.config.pools
  }

  /** The timeouts that rules of the live policy have of their own. */
  get timeouts(): readonly Partial<Timeouts>[] {
    const { rules, otherwise } = this.#live.config
    return [...rules.map(({ decision }) => decision), otherwise].flatMap((decision) =>
      'timeouts' in decision && decision.timeouts !== undefined ? [decision.timeouts] : [],
    )
  }

  /** Whether either asks by which link flows come. */
  get asksLink(): boolean {
    return this.#live.policy.asksLink || this.shadow?.policy.asksLink === true
  }

  async close(): Promise<void> {
    await this.#live.close()
    await this.#candidate?.close()
  }
}
