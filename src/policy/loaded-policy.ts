import type { PolicyConfig } from '../config/policy-types.ts'
import { Lists } from './lists.ts'
import { Policy } from './policy.ts'

/** A policy and its lists, ready to decide. Watches the files of the lists until it is closed. */
export class LoadedPolicy {
  readonly config: PolicyConfig
  readonly policy: Policy
  readonly #lists: Lists

  private constructor(config: PolicyConfig, lists: Lists) {
    this.config = config
    this.policy = new Policy(config, (name) => lists.get(name)!) // config has checked that there is one
    this.#lists = lists
  }

  /** `note`: told when a list cannot be read any more. @throws ListError with what is wrong with a list; then nothing is open. */
  static async open(config: PolicyConfig, note: (line: string) => void): Promise<LoadedPolicy> {
    const lists = await Lists.open(config.lists, {
      onProblem: (name, { message }) => note(`list ${name} stays as it was: ${message}`),
    })
    return new LoadedPolicy(config, lists)
  }

  /** Whether it lets every flow go on as its listener says. */
  get isOpen(): boolean {
    const { rules, otherwise, hostCheck } = this.config
    const { kind, ...onward } = otherwise
    if (hostCheck !== 'off') return false
    return rules.length === 0 && kind === 'forward' && Object.values(onward).every((one) => one === undefined)
  }

  /** Flows that ask it meanwhile are still answered, by the lists as they are now. */
  async close(): Promise<void> {
    await this.#lists.close()
  }
}
