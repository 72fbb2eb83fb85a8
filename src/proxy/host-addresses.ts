import { familyOf } from '../net/address.ts'
import type { FoundAddress, NameLookup } from './name-lookup.ts'

/** Names of which something is known; the one that was asked for longest ago makes room. */
const MOST_NAMES = 8_192
/** Of one name and family, within the time for which they count. */
const MOST_ADDRESSES = 256
/** Lookups at once. */
const MOST_UNDER_WAY = 256
/** Flows that wait for them at once: sessions of forged clients may be many. */
const MOST_WAITING = 16_384
const DEADLINE_MS = 3_000 // clients wait some more, and then believe the server dead
/** A name whose answers are others each time has them counted for so long at the least: another flow may have been dialled by an earlier one. */
const MIN_KEPT_MS = 60_000
const MAX_KEPT_MS = 3_600_000
/** An address that was not among the answers, or an answer that did not come, is asked for again after so long. */
const AGAIN_MS = 1_000

/** `mismatch`: the name has other addresses, or none; `unresolved`: nobody says so in time. */
export type AddressAnswer = 'resolved' | 'mismatch' | 'unresolved'

interface Waiter {
  readonly address: string
  readonly done: (answer: AddressAnswer) => void
}

interface Known {
  /** Until when each counts, in monotonic milliseconds. */
  readonly addresses: Map<string, number>
  answeredAtMs: number
  isFailed: boolean
  /** Who waits for the lookup that is under way. */
  waiters: Set<Waiter> | undefined
}

/** Whether names have addresses: asked of name servers, and kept. Bounded in names, addresses, lookups and time. */
export class HostAddresses {
  readonly #lookup: NameLookup
  readonly #now: () => number
  /** By family and name; what was answered longest ago is first. */
  readonly #known = new Map<string, Known>()
  readonly #timers = new Set<NodeJS.Timeout>()
  #underWay = 0
  #waiting = 0

  /** `now`: monotonic milliseconds. */
  constructor(lookup: NameLookup, now: () => number) {
    this.#lookup = lookup
    this.#now = now
  }

  /** Names of which something is known or asked. */
  get names(): number {
    return this.#known.size
  }

  /** `done` is told once, within this call or later; not any more after the returned function was called. */
  ask(name: string, address: string, done: (answer: AddressAnswer) => void): () => void {
    const key = `${familyOf(address)} ${name}`
    const known = this.#known.get(key)
    const said = this.#said(known, address)
    if (said !== undefined) {
      done(said)
      return nothing
    }
    const { waiters } = known?.waiters === undefined ? this.#begin(key, name, address, known) : known
    const waiter = { address, done }
    waiters!.add(waiter)
    this.#waiting++
    return () => this.#leave(waiters!, waiter)
  }

  #leave(waiters: Set<Waiter>, waiter: Waiter): void {
    if (waiters.delete(waiter)) this.#waiting--
  }

  /** Undefined: it has to be asked for, or waited for. */
  #said(known: Known | undefined, address: string): AddressAnswer | undefined {
    const now = this.#now()
    if ((known?.addresses.get(address) ?? 0) > now) return 'resolved'
    if (known?.waiters !== undefined) return this.#waiting >= MOST_WAITING ? 'unresolved' : undefined
    if (known !== undefined && now - known.answeredAtMs < AGAIN_MS) return known.isFailed ? 'unresolved' : 'mismatch'
    return this.#underWay >= MOST_UNDER_WAY ? 'unresolved' : undefined
  }

  #begin(key: string, name: string, address: string, former: Known | undefined): Known {
    const known = former ?? { addresses: new Map(), answeredAtMs: 0, isFailed: false, waiters: undefined }
    known.waiters = new Set()
    if (former === undefined) this.#makeRoom()
    this.#known.set(key, known)
    let isOver = false
    const over = (found: readonly FoundAddress[] | undefined): void => {
      if (isOver) return
      isOver = true
      clearTimeout(timer)
      this.#timers.delete(timer)
      this.#settle(key, known, found)
    }
    const timer = setTimeout(() => over(undefined), DEADLINE_MS)
    this.#timers.add(timer)
    this.#underWay++
    this.#lookup.ask(name, familyOf(address), (found) => {
      this.#underWay-- // also of what was too late: it was under way until now
      over(found)
    })
    return known
  }

  #settle(key: string, known: Known, found: readonly FoundAddress[] | undefined): void {
    const now = this.#now()
    known.answeredAtMs = now
    known.isFailed = found === undefined
    for (const [address, untilMs] of known.addresses) if (untilMs <= now) known.addresses.delete(address)
    for (const { address, ttlSeconds } of (found ?? []).slice(0, MOST_ADDRESSES)) {
      known.addresses.delete(address)
      known.addresses.set(address, now + Math.min(Math.max(ttlSeconds * 1000, MIN_KEPT_MS), MAX_KEPT_MS))
      if (known.addresses.size > MOST_ADDRESSES) known.addresses.delete(known.addresses.keys().next().value!)
    }
    const waiters = known.waiters ?? new Set<Waiter>()
    known.waiters = undefined
    this.#known.delete(key)
    this.#known.set(key, known)
    const otherwise = known.isFailed ? 'unresolved' : 'mismatch'
    for (const waiter of waiters) {
      this.#leave(waiters, waiter)
      waiter.done((known.addresses.get(waiter.address) ?? 0) > now ? 'resolved' : otherwise)
    }
  }

  #makeRoom(): void {
    if (this.#known.size < MOST_NAMES) return
    for (const [key, { waiters }] of this.#known) {
      if (waiters !== undefined) continue
      this.#known.delete(key)
      return
    }
  }

  /** Nobody is told any more. */
  close(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    for (const known of this.#known.values()) known.waiters?.clear()
    this.#lookup.close()
  }
}

function nothing(): void {}
