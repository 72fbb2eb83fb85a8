import { addressBytes, type Family } from '../net/address.ts'
import type { Prefix } from '../net/prefix.ts'

/** Prefixes that may be added at run time; 65,536 take about 40 MB of the kernel's memory, and 20 MB here. */
export const MAX_RUN_TIME_BYPASS = 65_536

/** One destination that was asked to be bypassed. */
export interface BypassEntry {
  readonly prefix: Prefix
  /** From the configuration: it stays. */
  readonly configured: boolean
  /** By performance.now(); undefined: until it is removed. */
  readonly deadlineAt: number | undefined
}

interface Listed extends BypassEntry {
  readonly value: bigint
}

/**
 * What was asked to be bypassed, by prefix. The kernel refuses overlapping intervals in one set, so it has those alone that lie
 * within no other one; those within come to the kernel when what covers them goes. Pure: no clock, no kernel.
 */
export class BypassList {
  readonly #entries = new Map<string, Listed>()
  /** How many there are of each length: only these are asked for what covers a prefix. */
  readonly #lengths: Readonly<Record<Family, number[]>> = { 4: new Array(33).fill(0), 6: new Array(129).fill(0) }
  #runTime = 0

  constructor(configured: readonly Prefix[]) {
    for (const prefix of configured) this.#put({ prefix, configured: true, deadlineAt: undefined })
  }

  get size(): number {
    return this.#entries.size
  }

  entries(): Iterable<BypassEntry> {
    return this.#entries.values()
  }

  get(prefix: Prefix): BypassEntry | undefined {
    return this.#entries.get(keyOf(prefix))
  }

  /**
   * `full`: nothing was added, MAX_RUN_TIME_BYPASS are there. `already`: it is bypassed for as long, or for longer. `prolonged`:
   * its deadline is later now. `changed`: those whose place in the kernel may be another one.
   */
  add(
    prefix: Prefix,
    deadlineAt: number | undefined,
  ): { readonly outcome: 'added' | 'prolonged' | 'already' | 'full'; readonly changed: readonly Prefix[] } {
    const there = this.get(prefix)
    if (there !== undefined) {
      if (there.deadlineAt === undefined || (deadlineAt !== undefined && deadlineAt <= there.deadlineAt)) {
        return { outcome: 'already', changed: [] }
      }
      this.#put({ prefix, configured: false, deadlineAt })
      return { outcome: 'prolonged', changed: [prefix] }
    }
    if (this.#runTime >= MAX_RUN_TIME_BYPASS) return { outcome: 'full', changed: [] }
    this.#put({ prefix, configured: false, deadlineAt })
    return { outcome: 'added', changed: [...this.#within(prefix), prefix] }
  }

  /** @returns those whose place in the kernel may be another one; none when it was not there. */
  remove(prefix: Prefix): readonly Prefix[] {
    return this.#delete(prefix) ? [prefix, ...this.#within(prefix)] : []
  }

  /** Removes those whose time is up. @returns as remove(). */
  expire(now: number): readonly Prefix[] {
    const over = [...this.#entries.values()].filter(({ deadlineAt }) => deadlineAt !== undefined && deadlineAt <= now)
    if (over.length === 0) return []
    for (const { prefix } of over) this.#delete(prefix)
    const shortest = over.reduce((least, { prefix }) => Math.min(least, prefix.length), 128)
    const longer = [...this.#entries.values()].filter(({ prefix }) => prefix.length > shortest)
    return [...over, ...longer].map(({ prefix }) => prefix)
  }

  /** When the first of them is over; undefined when none will be. */
  nextDeadline(): number | undefined {
    let next: number | undefined
    for (const { deadlineAt } of this.#entries.values()) {
      if (deadlineAt !== undefined && (next === undefined || deadlineAt < next)) next = deadlineAt
    }
    return next
  }

  /** Whether the kernel is to have it: it is there, and lies within no other one. */
  isOutermost(prefix: Prefix): boolean {
    const entry = this.get(prefix)
    return entry !== undefined && this.covering(entry.prefix) === undefined
  }

  /** The shortest prefix that it lies within, if there is one. */
  covering(prefix: Prefix): BypassEntry | undefined {
    const { family, length } = prefix
    const bits = family === 4 ? 32 : 128
    const value = numberOf(prefix)
    const lengths = this.#lengths[family]
    for (let shorter = 0; shorter < length; shorter++) {
      if (lengths[shorter] === 0) continue
      const network = (value >> BigInt(bits - shorter)) << BigInt(bits - shorter)
      const found = this.#entries.get(keyText(family, shorter, network))
      if (found !== undefined) return found
    }
    return undefined
  }

  #within(prefix: Prefix): Prefix[] {
    const { family, length } = prefix
    if (!this.#lengths[family].some((count, longer) => longer > length && count > 0)) return []
    const shift = BigInt((family === 4 ? 32 : 128) - length)
    const network = numberOf(prefix) >> shift
    const found: Prefix[] = []
    for (const entry of this.#entries.values()) {
      if (entry.prefix.family !== family || entry.prefix.length <= length) continue
      if (entry.value >> shift === network) found.push(entry.prefix)
    }
    return found
  }

  #delete(prefix: Prefix): boolean {
    const there = this.get(prefix)
    if (there === undefined) return false
    this.#entries.delete(keyOf(prefix))
    this.#lengths[prefix.family][prefix.length]! -= 1
    if (!there.configured) this.#runTime--
    return true
  }

  #put(entry: BypassEntry): void {
    const key = keyOf(entry.prefix)
    if (!this.#entries.has(key)) {
      this.#lengths[entry.prefix.family][entry.prefix.length]! += 1
      if (!entry.configured) this.#runTime++
    }
    this.#entries.set(key, { ...entry, value: numberOf(entry.prefix) })
  }
}

function keyOf(prefix: Prefix): string {
  return keyText(prefix.family, prefix.length, numberOf(prefix))
}

function keyText(family: Family, length: number, value: bigint): string {
  return `${family} ${length} ${value.toString(16)}`
}

function numberOf({ address }: Prefix): bigint {
  return addressBytes(address).reduce((value, byte) => (value << 8n) | BigInt(byte), 0n)
}
