import { LimpidError } from '../errors.ts'
import type { Family } from '../net/address.ts'
import { formatPrefix, type Prefix } from '../net/prefix.ts'
import { type BypassCounts, elementSetsOf, listElements, readBypassAccounts } from '../ruleset/bypass-account.ts'
import { type Counted, countedKey, elementCommands, type NewElement } from '../ruleset/bypass-elements.ts'
import { type BypassEntry, BypassList, MAX_RUN_TIME_BYPASS } from '../ruleset/bypass-list.ts'
import { bypassDropped, forwardingKey, type Plan } from '../ruleset/plan.ts'
import { readSysctl } from '../sys/host.ts'

const AT_ONCE = 1_000 // elements of one transaction: 100 kB for the kernel, less than the default net.core.wmem_max of 212,992
const GONE_AFTER_MS = 250 // what is over by our clock is over by the kernel's, too, which may have begun later
const MAX_TIMER_MS = 86_400_000 // setTimeout() takes 24 days at most
const NO_COUNTS: BypassCounts = { connections: 0, packets: 0, bytes: 0 }

/** What became of a request to bypass: `already`: it is bypassed for as long, or for longer. */
export type BypassOutcome = 'added' | 'prolonged' | 'already'

/** One prefix that the kernel forwards by itself, and what it has forwarded. */
export interface BypassedPrefix extends BypassCounts {
  readonly prefix: Prefix
  readonly configured: boolean
  /** Milliseconds; undefined: until it is removed. */
  readonly expiresInMs: number | undefined
  /** Another one that it lies within, which counts for it. */
  readonly within: Prefix | undefined
}

/**
 * The destinations that the kernel forwards by itself: those of the configuration, which the rules have from the start, and those
 * that come while Limpid runs, which are kept here, so that they are put back with the rules. Changes are gathered: while nft
 * makes one, the next ones wait to be made together.
 */
export class KernelBypass implements Disposable {
  readonly #plan: Plan
  readonly #change: (commands: string) => Promise<void>
  readonly #note: (line: string) => void
  readonly #list: BypassList
  /** What the kernel has, by formatPrefix(): until when. */
  readonly #installed = new Map<string, number | undefined>()
  /** Those whose place in the kernel may be another one now. */
  readonly #changed = new Map<string, Prefix>()
  readonly #told = new Set<Family | 'full'>()
  #running: Promise<void> | undefined
  #isStale = false
  #isClosed = false
  #refused = 0
  #timer: NodeJS.Timeout | undefined

  /** `change`: InstalledRuleset.change() of the rules of this plan. */
  constructor(plan: Plan, change: (commands: string) => Promise<void>, note: (line: string) => void) {
    this.#plan = plan
    this.#change = change
    this.#note = note
    this.#list = new BypassList(plan.bypass)
    this.#takeConfigured()
  }

  /** How many requests were refused because there were MAX_RUN_TIME_BYPASS. */
  get refused(): number {
    return this.#refused
  }

  /**
   * From now on no new connection, and no datagram, to that destination is taken. Returns when the kernel has it.
   * @throws LimpidError LIMPID_BYPASS when it cannot be: the backend is iptables, no listener takes that family, there are too many.
   * LIMPID_PROGRAM when the kernel refuses; it is tried again with the next change, and when the rules are restored.
   */
  async bypass(prefix: Prefix, { forMs }: { readonly forMs?: number | undefined } = {}): Promise<BypassOutcome> {
    this.#requireSets(prefix)
    if (forMs !== undefined && !(forMs > 0 && Number.isFinite(forMs))) {
      throw new LimpidError('LIMPID_USAGE', `bypass ${formatPrefix(prefix)}: expected a time, found ${forMs} ms`)
    }
    const now = performance.now()
    this.#expire(now)
    const { outcome, changed } = this.#list.add(prefix, forMs === undefined ? undefined : now + forMs)
    if (outcome === 'full') throw this.#full(prefix)
    if (outcome === 'added') this.#tellForwarding(prefix)
    if (changed.length > 0) await this.#apply(changed)
    return outcome
  }

  /**
   * From now on new connections, and datagrams, to that destination are taken again.
   * @returns false when it was not bypassed.
   * @throws LimpidError LIMPID_BYPASS for one that stands in the configuration; LIMPID_PROGRAM as bypass().
   */
  async unbypass(prefix: Prefix): Promise<boolean> {
    this.#expire(performance.now())
    const entry = this.#list.get(prefix)
    if (entry === undefined) return false
    if (entry.configured) {
      throw new LimpidError('LIMPID_BYPASS', `bypass ${formatPrefix(prefix)} stands in the configuration`, {
        cure: 'take it out there, and start Limpid again',
      })
    }
    await this.#apply(this.#list.remove(prefix))
    return true
  }

  /** All of them, with what the kernel has counted for each. @throws LimpidError LIMPID_PROGRAM when that cannot be read. */
  async bypassed(): Promise<BypassedPrefix[]> {
    const { of } = await readBypassAccounts(this.#plan)
    const now = performance.now()
    return [...this.#list.entries()]
      .filter((entry) => !isOver(entry, now))
      .map(({ prefix, configured, deadlineAt }) => ({
        ...{ prefix, configured },
        expiresInMs: deadlineAt === undefined ? undefined : deadlineAt - now,
        within: this.#list.covering(prefix)?.prefix,
        ...(of.get(formatPrefix(prefix)) ?? NO_COUNTS),
      }))
  }

  /** The rules were loaded anew: the kernel has the configured ones alone. */
  async reload(): Promise<void> {
    this.#takeConfigured()
    this.#expire(performance.now())
    await this.#apply([...this.#list.entries()].map(({ prefix }) => prefix))
  }

  /** For rules that outlive this process: from now on the kernel has the configured ones alone. */
  async withdraw(): Promise<void> {
    if (elementSetsOf(this.#plan).length === 0) return
    for (const { prefix, configured } of [...this.#list.entries()]) if (!configured) this.#list.remove(prefix)
    this.#isStale = true
    await this.#apply([])
  }

  [Symbol.dispose](): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  #takeConfigured(): void {
    this.#installed.clear()
    const configured = new BypassList(this.#plan.bypass)
    for (const { prefix } of configured.entries()) {
      if (configured.isOutermost(prefix)) this.#installed.set(formatPrefix(prefix), undefined)
    }
  }

  #requireSets(prefix: Prefix): void {
    const what = `bypass ${formatPrefix(prefix)}`
    if (this.#plan.backend === 'iptables') {
      throw new LimpidError('LIMPID_BYPASS', `${what}: the backend iptables has no sets that could grow at run time`, {
        cure: 'take the backend nft, or write it into the configuration and start Limpid again',
      })
    }
    if (!elementSetsOf(this.#plan).some(({ family }) => family === prefix.family)) {
      throw new LimpidError('LIMPID_BYPASS', `${what}: no listener takes IPv${prefix.family}: it passes by anyway`)
    }
  }

  #full(prefix: Prefix): LimpidError {
    this.#refused++
    const why = `there are ${MAX_RUN_TIME_BYPASS} already`
    if (!this.#told.has('full')) this.#note(`bypass: ${why}; no more is taken until some are over or removed`)
    this.#told.add('full')
    return new LimpidError('LIMPID_BYPASS', `bypass ${formatPrefix(prefix)}: ${why}`, {
      cure: 'bypass shorter prefixes, or for a shorter time',
    })
  }

  /** Once for each family. */
  #tellForwarding(prefix: Prefix): void {
    const { family } = prefix
    const forwarded = this.#plan.interceptions.some((one) => one.family === family && one.path === 'forwarded')
    if (!forwarded || this.#told.has(family) || readSysctl(forwardingKey(family)) !== '0') return
    this.#told.add(family)
    this.#note(bypassDropped(prefix))
  }

  /** The kernel forgets by itself what is over. What lay within it comes to the kernel now. */
  #expire(now: number): void {
    const before = new Set([...this.#list.entries()].filter((entry) => isOver(entry, now)).map(({ prefix }) => prefix))
    if (before.size === 0) return
    for (const prefix of this.#list.expire(now)) this.#changed.set(formatPrefix(prefix), prefix)
    for (const prefix of before) {
      this.#installed.delete(formatPrefix(prefix))
      this.#changed.delete(formatPrefix(prefix))
    }
    this.#told.delete('full')
  }

  async #apply(changed: readonly Prefix[]): Promise<void> {
    for (const prefix of changed) this.#changed.set(formatPrefix(prefix), prefix)
    this.#running ??= this.#makeChanges().finally(() => {
      this.#running = undefined
      this.#wakeAtNextDeadline()
    })
    await this.#running
  }

  #wakeAtNextDeadline(): void {
    clearTimeout(this.#timer)
    const next = this.#list.nextDeadline()
    if (next === undefined || this.#isClosed) return
    const waitMs = Math.min(MAX_TIMER_MS, Math.max(0, next - performance.now()) + GONE_AFTER_MS)
    this.#timer = setTimeout(() => {
      this.#expire(performance.now())
      this.#apply([]).catch((error: unknown) => this.#note(`bypass: ${(error as Error).message}`))
    }, waitMs).unref()
  }

  async #makeChanges(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve)) // what is asked for in this turn is one change
    let isRetry = false
    while ((this.#changed.size > 0 || this.#isStale) && !this.#isClosed) {
      try {
        if (this.#isStale) await this.#makeAnew()
        else await this.#makeSome()
      } catch (error) {
        // one that is over by the kernel's clock cannot be removed, for instance
        this.#isStale = true
        if (isRetry) throw error
        isRetry = true
      }
    }
  }

  /** The changes that there are; those that come meanwhile are left. */
  async #makeSome(): Promise<void> {
    const now = performance.now()
    const gone: Prefix[] = []
    const added: BypassEntry[] = []
    const replaced: Prefix[] = []
    for (const [key, prefix] of this.#changed) {
      const isThere = this.#installed.has(key)
      const entry = this.#list.isOutermost(prefix) ? this.#list.get(prefix) : undefined
      const isWanted = entry !== undefined && !isOver(entry, now)
      if (isThere && isWanted && this.#installed.get(key) === entry.deadlineAt) continue
      if (isThere) gone.push(prefix)
      if (isWanted) added.push(entry)
      if (isThere && isWanted) replaced.push(prefix)
    }
    this.#changed.clear()
    const counted = replaced.length === 0 ? undefined : await this.#counted()
    if (gone.length + added.length <= AT_ONCE) return await this.#send(gone, added, counted)
    // what goes may overlap with what comes
    for (const some of portions(gone)) await this.#send(some, [], counted)
    for (const some of portions(added)) await this.#send([], some, counted)
  }

  /** All of them into empty sets, with what they have counted. */
  async #makeAnew(): Promise<void> {
    this.#changed.clear()
    const now = performance.now()
    const all = [...this.#list.entries()].filter((entry) => !isOver(entry, now) && this.#list.isOutermost(entry.prefix))
    const counted = await this.#counted()
    this.#installed.clear()
    const [first = [], ...others] = portions(all)
    await this.#send([], first, counted, { flush: true })
    for (const some of others) await this.#send([], some, counted)
    this.#isStale = false
  }

  async #send(
    gone: readonly Prefix[],
    added: readonly BypassEntry[],
    counted: Counted | undefined,
    { flush }: { readonly flush: boolean } = { flush: false },
  ): Promise<void> {
    if (gone.length + added.length === 0 && !flush) return
    const now = performance.now()
    const elements = added.map(({ prefix, deadlineAt }): NewElement => {
      return { prefix, timeoutMs: deadlineAt === undefined ? undefined : Math.max(1, deadlineAt - now) }
    })
    await this.#change(elementCommands(elementSetsOf(this.#plan), { flush, gone, added: elements }, counted))
    for (const prefix of gone) this.#installed.delete(formatPrefix(prefix))
    for (const { prefix, deadlineAt } of added) this.#installed.set(formatPrefix(prefix), deadlineAt)
  }

  async #counted(): Promise<Counted> {
    const counted = new Map<string, { packets: number; bytes: number }>()
    for (const set of elementSetsOf(this.#plan)) {
      for (const { prefix, packets, bytes } of await listElements(set)) {
        counted.set(countedKey(set, prefix), { packets, bytes })
      }
    }
    return counted
  }
}

function isOver({ deadlineAt }: BypassEntry, now: number): boolean {
  return deadlineAt !== undefined && deadlineAt <= now
}

function portions<T>(items: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / AT_ONCE) }, (_, i) =>
    items.slice(i * AT_ONCE, (i + 1) * AT_ONCE),
  )
}
