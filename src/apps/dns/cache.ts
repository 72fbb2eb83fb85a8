import { type DnsQuery, FLAG, HEADER_BYTES, put16, put32, u16, u32 } from '../../inspect/dns.ts'
import { type DnsAnswer, keepSeconds } from '../../inspect/dns-answer.ts'
import { OPT_BYTES, truncateInPlace, writeOpt } from '../../inspect/dns-write.ts'
import type { Lesson } from './learnt.ts'

const ENTRY_BYTES = 400 // two records, two typed arrays, a place in the map: measured with 100,000 entries
const MAX_ANSWER_BYTES = 16_384 // a larger one would push out hundreds of others
const USED_MS = 1000 // uses within it count as one: the order is for the least used, and most are used often
const MAX_NEGATIVE_S = 10_800 // three hours, RFC 2308 §5

export interface CacheBounds {
  readonly entries: number
  readonly bytes: number
  readonly maxTtlMs: number
}

/** An answer without its OPT record, as its TTLs are at `agedAtMs`. */
export interface CachedAnswer {
  readonly key: string
  readonly bytes: Uint8Array
  readonly questionEnd: number
  readonly additionals: number
  readonly ttlAt: Uint16Array
  readonly expiresAtMs: number
  /** What a client learns that gets it; undefined: nothing, or nobody asked. */
  readonly lesson: Lesson | undefined
  agedAtMs: number
  usedAtMs: number
  /** Neighbours by use: `newer` of the newest and `older` of the oldest is the cache's own link. */
  newer: CachedAnswer
  older: CachedAnswer
}

/** Answers by question, until their TTLs end. At its bounds the least used makes room. Times are monotonic milliseconds. */
export class AnswerCache {
  readonly #bounds: CacheBounds
  readonly #answers = new Map<string, CachedAnswer>()
  readonly #ends = endsOfList() // a ring: newest is its `older`, oldest its `newer`
  #bytes = 0
  #evicted = 0

  constructor(bounds: CacheBounds) {
    this.#bounds = bounds
  }

  get entries(): number {
    return this.#answers.size
  }

  /** With what each entry costs beside its message. */
  get bytes(): number {
    return this.#bytes
  }

  get evicted(): number {
    return this.#evicted
  }

  get(key: string, nowMs: number): CachedAnswer | undefined {
    const found = this.#answers.get(key)
    if (found === undefined) return undefined
    if (found.expiresAtMs <= nowMs) {
      this.#remove(found)
      return undefined
    }
    if (nowMs - found.usedAtMs > USED_MS) {
      found.usedAtMs = nowMs
      unlink(found)
      this.#linkNewest(found)
    }
    return found
  }

  /** Keeps a copy of the answer to the question of `key` for as long as it may; false: it may not be kept. */
  put(key: string, message: Uint8Array, answer: DnsAnswer, nowMs: number, lesson?: Lesson): boolean {
    const maxTtl = Math.floor(this.#bounds.maxTtlMs / 1000)
    const ttl = Math.min(keepSeconds(answer), maxTtl, answer.hasType ? maxTtl : MAX_NEGATIVE_S)
    const length = answer.optAt === 0 ? answer.end : answer.optAt
    const size = sizeOf(key, length)
    if (ttl <= 0 || length > MAX_ANSWER_BYTES || size > this.#bounds.bytes || this.#bounds.entries < 1) return false
    const former = this.#answers.get(key)
    if (former !== undefined) this.#remove(former)
    while (this.#answers.size >= this.#bounds.entries || this.#bytes + size > this.#bounds.bytes) {
      this.#remove(this.#ends.newer)
      this.#evicted++
    }
    const bytes = message.slice(0, length)
    const ttlAt = answer.ttlAt.slice(0, answer.ttls)
    const cap = answer.hasType ? maxTtl : ttl // without an answer the SOA's TTL says how long: RFC 2308 §5
    for (const at of ttlAt) put32(bytes, at, Math.min(Math.max(0, u32(bytes, at)), cap))
    const entry: CachedAnswer = {
      key,
      bytes,
      questionEnd: answer.questionEnd,
      additionals: answer.additionals - (answer.optAt === 0 ? 0 : 1),
      ttlAt,
      expiresAtMs: nowMs + ttl * 1000,
      lesson,
      agedAtMs: nowMs,
      usedAtMs: nowMs,
      newer: this.#ends,
      older: this.#ends,
    }
    this.#answers.set(key, entry)
    this.#bytes += size
    this.#linkNewest(entry)
    return true
  }

  #linkNewest(entry: CachedAnswer): void {
    const former = this.#ends.older
    entry.older = former
    entry.newer = this.#ends
    former.newer = entry
    this.#ends.older = entry
  }

  #remove(entry: CachedAnswer): void {
    unlink(entry)
    this.#answers.delete(entry.key)
    this.#bytes -= sizeOf(entry.key, entry.bytes.length)
  }
}

function sizeOf(key: string, messageBytes: number): number {
  return ENTRY_BYTES + key.length + messageBytes
}

function unlink(entry: CachedAnswer): void {
  entry.older.newer = entry.newer
  entry.newer.older = entry.older
}

function endsOfList(): CachedAnswer {
  const nothing = { key: '', bytes: new Uint8Array(0), ttlAt: new Uint16Array(0), lesson: undefined }
  const ends = {
    ...nothing,
    questionEnd: 0,
    additionals: 0,
    expiresAtMs: 0,
    agedAtMs: 0,
    usedAtMs: 0,
  } as unknown as CachedAnswer
  ends.newer = ends
  ends.older = ends
  return ends
}

/**
 * Writes a kept answer for `query`, whose bytes are `message`, to `out`: its id, RD and spelling of the name, TTLs as they are
 * now, EDNS where it has it; truncated above `limit` bytes. Returns the length.
 */
export function writeCached(
  entry: CachedAnswer,
  message: Uint8Array,
  query: DnsQuery,
  nowMs: number,
  out: Uint8Array,
  limit: number,
): number {
  const elapsedS = Math.floor((nowMs - entry.agedAtMs) / 1000)
  if (elapsedS > 0) age(entry, elapsedS)
  const { bytes, questionEnd } = entry
  const { length } = bytes
  const fits = length + (query.edns ? OPT_BYTES : 0) <= limit
  out.set(fits ? bytes : bytes.subarray(0, questionEnd))
  out[0] = message[0]!
  out[1] = message[1]!
  put16(out, 2, (u16(bytes, 2) & ~FLAG.rd) | (query.flags & FLAG.rd))
  put16(out, 10, entry.additionals + (query.edns ? 1 : 0))
  for (let i = HEADER_BYTES; i < query.nameEnd; i++) out[i] = message[i]!
  if (fits) return query.edns ? writeOpt(out, length, query.dnssecOk) : length
  return truncateInPlace(out.subarray(0, questionEnd + OPT_BYTES), questionEnd, query.edns, query.dnssecOk)
}

/** Once a second at the most, and in place: the copies that are handed out in between are the same. */
function age(entry: CachedAnswer, elapsedS: number): void {
  for (const at of entry.ttlAt) put32(entry.bytes, at, Math.max(0, u32(entry.bytes, at) - elapsedS))
  entry.agedAtMs += elapsedS * 1000
}
