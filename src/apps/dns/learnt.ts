import { HEADER_BYTES } from '../../inspect/dns.ts'
import { answerAddresses, type DnsAnswer } from '../../inspect/dns-answer.ts'
import { nameText } from '../../inspect/dns-name.ts'

const NO_NAMES: readonly string[] = []
const MIN_KEPT_MS = 30_000 // programs dial some time after they have asked, also where the TTL is 0
const MAX_KEPT_MS = 86_400_000
const MAX_CLIENTS = 4096
const MAX_PER_CLIENT = 256 // a large web page asks for about fifty names
const MAX_LESSONS = 131_072 // of all clients together

/** What one answer teaches: these addresses have this name. */
export interface Lesson {
  /** Of what it says, however often it is said. */
  readonly key: string
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
  return newLesson(nameText(message, HEADER_BYTES), addresses, nowMs + answer.minTtl * 1000)
}

export function newLesson(name: string, addresses: readonly string[], endsAtMs: number): Lesson {
  // servers give the same addresses in another order each time
  return { key: [name, ...addresses.toSorted()].join(' '), name, addresses, endsAtMs }
}

interface Learnt {
  readonly lesson: Lesson
  readonly untilMs: number
}

/** The names by which each client knows its servers, for policy. Times are monotonic milliseconds. */
export class LearntNames {
  /** By client, then by key; what was learnt longest ago is first. */
  readonly #clients = new Map<string, Map<string, Learnt>>()
  #lessons = 0
  readonly #onLesson: (clientAddress: string, lesson: Lesson) => void

  /** `onLesson` hears of all that note() is told. */
  constructor(onLesson: (clientAddress: string, lesson: Lesson) => void = () => {}) {
    this.#onLesson = onLesson
  }

  /** Of all clients together. */
  get lessons(): number {
    return this.#lessons
  }

  /** The client has got this answer. */
  note(clientAddress: string, lesson: Lesson, nowMs: number): void {
    this.keep(clientAddress, lesson, nowMs)
    this.#onLesson(clientAddress, lesson)
  }

  /** As note(), of an answer that the client has got from another process of ours. */
  keep(clientAddress: string, lesson: Lesson, nowMs: number): void {
    const untilMs = Math.min(Math.max(lesson.endsAtMs, nowMs + MIN_KEPT_MS), nowMs + MAX_KEPT_MS)
    const learnt = { lesson, untilMs }
    const former = this.#clients.get(clientAddress)
    if (former?.delete(lesson.key)) {
      former.set(lesson.key, learnt)
      return
    }
    const lessons = former ?? new Map<string, Learnt>()
    if (former !== undefined) this.#clients.delete(clientAddress)
    if (lessons.size >= MAX_PER_CLIENT) this.#forgetOldest(lessons)
    while (this.#clients.size >= MAX_CLIENTS || this.#lessons >= MAX_LESSONS) {
      const oldest = this.#clients.entries().next().value
      if (oldest === undefined) break
      this.#clients.delete(oldest[0])
      this.#lessons -= oldest[1].size
    }
    lessons.set(lesson.key, learnt)
    this.#lessons++
    this.#clients.set(clientAddress, lessons)
  }

  #forgetOldest(lessons: Map<string, Learnt>): void {
    for (const key of lessons.keys()) {
      lessons.delete(key)
      this.#lessons--
      return
    }
  }

  /** The names that the client asked for and whose answers had this address; the one learnt last comes first. */
  namesOf(clientAddress: string, serverAddress: string, nowMs: number): readonly string[] {
    const lessons = this.#clients.get(clientAddress)
    if (lessons === undefined) return NO_NAMES
    const names: string[] = []
    for (const { lesson, untilMs } of lessons.values()) {
      if (untilMs > nowMs && lesson.addresses.includes(serverAddress)) names.unshift(lesson.name)
    }
    return [...new Set(names)]
  }
}
