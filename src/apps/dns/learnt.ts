import { HEADER_BYTES } from '../../inspect/dns.ts'
import { answerAddresses, type DnsAnswer } from '../../inspect/dns-answer.ts'
import { nameText } from '../../inspect/dns-name.ts'

const MIN_KEPT_MS = 30_000 // programs dial some time after they have asked, also where the TTL is 0
const MAX_KEPT_MS = 86_400_000
const MAX_CLIENTS = 4096
const MAX_PER_CLIENT = 256 // a large web page asks for about fifty names
const MAX_LESSONS = 131_072 // of all clients together

/** What one answer teaches: these addresses have this name. */
export interface Lesson {
  /** Safe text, in lower case: `www.example.org`. */
  readonly name: string
  /** Canonical text, not empty. */
  readonly addresses: readonly string[]
  /** Monotonic milliseconds: when the answer's TTL ends. */
  readonly endsAtMs: number
}

/** What an answer teaches; undefined when it has no address. */
export function lessonOf(message: Uint8Array, answer: DnsAnswer, nowMs: number): Lesson | undefined {
  if (answer.rcode !== 0 || answer.answers === 0) return undefined
  const addresses = answerAddresses(message, answer)
  if (addresses.length === 0) return undefined
  return { name: nameText(message, HEADER_BYTES), addresses, endsAtMs: nowMs + answer.minTtl * 1000 }
}

/** The names by which each client knows its servers, for policy. Times are monotonic milliseconds. */
export class LearntNames {
  readonly #clients = new Map<string, Map<Lesson, number>>() // the client that learnt longest ago is first
  #lessons = 0

  /** Of all clients together. */
  get lessons(): number {
    return this.#lessons
  }

  /** The client has got this answer. */
  note(clientAddress: string, lesson: Lesson, nowMs: number): void {
    const untilMs = Math.min(Math.max(lesson.endsAtMs, nowMs + MIN_KEPT_MS), nowMs + MAX_KEPT_MS)
    const former = this.#clients.get(clientAddress)
    if (former?.has(lesson)) {
      former.set(lesson, untilMs)
      return
    }
    const lessons = former ?? new Map<Lesson, number>()
    if (former !== undefined) this.#clients.delete(clientAddress)
    if (lessons.size >= MAX_PER_CLIENT) this.#forget(lessons)
    while (this.#clients.size >= MAX_CLIENTS || this.#lessons >= MAX_LESSONS) {
      const oldest = this.#clients.entries().next().value
      if (oldest === undefined) break
      this.#clients.delete(oldest[0])
      this.#lessons -= oldest[1].size
    }
    lessons.set(lesson, untilMs)
    this.#lessons++
    this.#clients.set(clientAddress, lessons)
  }

  /** What is over; where nothing is, the oldest. */
  #forget(lessons: Map<Lesson, number>): void {
    for (const lesson of lessons.keys()) {
      lessons.delete(lesson)
      this.#lessons--
      return
    }
  }

  /** The names that the client asked for and whose answers had this address; the one learnt last comes first. */
  namesOf(clientAddress: string, serverAddress: string, nowMs: number): string[] {
    const names: string[] = []
    for (const [lesson, untilMs] of this.#clients.get(clientAddress) ?? []) {
      if (untilMs > nowMs && lesson.addresses.includes(serverAddress)) names.unshift(lesson.name)
    }
    return [...new Set(names)]
  }
}
