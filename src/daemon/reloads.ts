import { isDeepStrictEqual } from 'node:util'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { counted } from '../net/counted.ts'
import type { PolicyOrigin } from './policy-origin.ts'

/** What a reload has changed, and what it has not. */
export interface Reloaded {
  /** Of the policy that decides now. */
  readonly rules: number
  readonly lists: number
  /** Of the shadow policy; undefined where there is none. */
  readonly shadowRules: number | undefined
  /** Keys of the file that have another value than at the start: for them Limpid has to be started anew. */
  readonly needsRestart: readonly string[]
}

/** `policy reloaded: 5 rules, 1 list; limits changed too, which needs a restart`. */
export function reloadedLine({ rules, lists, shadowRules, needsRestart }: Reloaded): string {
  const restart = needsRestart.length === 0 ? '' : `; ${needsRestart.join(', ')} changed too, which needs a restart`
  const shadow = shadowRules === undefined ? '' : `, shadow policy ${counted(shadowRules, 'rule')}`
  return `policy reloaded: ${counted(rules, 'rule')}, ${counted(lists, 'list')}${shadow}${restart}`
}

/** Reads the configuration anew; undefined where it came from flags alone. `running`: the one of the start. @throws LimpidError */
export type Reread = ((running: Config) => Promise<Config>) | undefined

export interface ReloadsOptions {
  readonly reread: Reread
  /** Where the policy comes from; undefined: from the file. */
  readonly origin?: PolicyOrigin | undefined
  /** All of it, or it throws and nothing has changed. */
  use(config: Config): Promise<void>
  /** One line for the operator. */
  note(line: string): void
}

/** Changes the policy of a running Limpid to what its file says now, one time after the other. A file that is wrong changes nothing. */
export class Reloads {
  readonly #running: Config
  /** What decides now. */
  #current: Config
  readonly #options: ReloadsOptions
  #done = 0
  #failed = 0
  #last: Promise<unknown> = Promise.resolve()
  /** Asked for, and not begun. */
  #next: Promise<Reloaded> | undefined

  constructor(running: Config, options: ReloadsOptions) {
    this.#running = running
    this.#current = running
    this.#options = options
  }

  get counts(): { readonly reloads: number; readonly reloadsFailed: number } {
    return { reloads: this.#done, reloadsFailed: this.#failed }
  }

  /**
   * Resolves when flows are decided by what the file said after this call.
   * @throws LimpidError with what is wrong; ConfigError with its place. It has been noted and counted then.
   */
  reload(): Promise<Reloaded> {
    if (this.#next === undefined) {
      this.#next = this.#last.then(() => {
        this.#next = undefined
        return this.#use(() => this.#reread())
      })
      this.#last = this.#next.catch(() => {})
    }
    return this.#next
  }

  /** The same where the origin has another policy, and the file is as it was. */
  follow(): Promise<Reloaded> {
    const done = this.#last.then(() => this.#use(async () => this.#current))
    this.#last = done.catch(() => {})
    return done
  }

  async #reread(): Promise<Config> {
    const { reread } = this.#options
    if (reread !== undefined) return await reread(this.#running)
    throw new LimpidError('LIMPID_CONTROL', 'there is no file to read again: this limpid run was started with flags', {
      cure: 'start it with -c FILE',
    })
  }

  async #use(read: () => Promise<Config>): Promise<Reloaded> {
    const { origin, use, note } = this.#options
    try {
      const file = await read()
      if (origin === undefined && file.policyFrom !== undefined) throw fromElsewhere()
      const config = origin === undefined ? file : { ...file, policy: await origin.read() }
      await use(config)
      await origin?.taken()
      this.#current = config
      this.#done++
      const reloaded = { ...sizeOf(config), needsRestart: otherKeys(this.#running, config) }
      note(reloadedLine(reloaded))
      return reloaded
    } catch (error) {
      this.#failed++
      note(`policy stays as it was: ${(error as Error).toString()}`)
      throw error
    }
  }
}

function sizeOf({ policy, shadow }: Config): Omit<Reloaded, 'needsRestart'> {
  return {
    rules: policy.rules.length,
    lists: Object.keys(policy.lists).length,
    shadowRules: shadow?.rules.length,
  }
}

/** The file has no rules of its own any more: to take it for a policy without rules would let everything through. */
function fromElsewhere(): LimpidError {
  return new LimpidError('LIMPID_CONFIG', 'the file has "policyFrom" now, and had a policy of its own at the start', {
    cure: 'start Limpid again: where the policy comes from is read at the start alone',
  })
}

const RELOADED = ['policy', 'shadow']

/** Also those that only one of them has. */
function otherKeys(running: Config, config: Config): string[] {
  const keys = [...new Set([...Object.keys(running), ...Object.keys(config)])] as (keyof Config)[]
  return keys.filter((key) => !RELOADED.includes(key) && !isDeepStrictEqual(running[key], config[key]))
}
