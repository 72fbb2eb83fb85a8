import { looksLikeQuicInitial, QuicHello } from '../inspect/quic-initial.ts'
import { type Finding, UNKNOWN } from '../policy/facts.ts'

/** Clients whose first datagrams wait at once; the one that waits longest makes room. */
const MOST_WAITING = 1_024
/** Of one of them: a browser's hello takes two datagrams, and both may be sent again. */
const MOST_DATAGRAMS = 8
const MOST_BYTES = 16_384

/** What is known of a client's first datagrams. */
export type DatagramFinding =
  /** `before`: datagrams that were held back, in their order; they go first. `quic` goes on looking. */
  | {
      readonly kind: 'found'
      readonly finding: Finding
      readonly quic: QuicHello
      readonly before: readonly Uint8Array[]
    }
  | { readonly kind: 'held' }
  | { readonly kind: 'malformed'; readonly why: string }

interface Waiting {
  readonly quic: QuicHello
  readonly datagrams: Uint8Array[]
  bytes: number
  readonly untilMs: number
}

/**
 * Datagrams of sessions that a policy has not decided yet, because a QUIC client's hello is longer than one of them. Nothing of a session
 * exists meanwhile. Times are monotonic milliseconds.
 */
export class UnfinishedHellos {
  readonly #waiting = new Map<string, Waiting>()

  /** Datagrams that are held back. */
  get datagrams(): number {
    let count = 0
    for (const { datagrams } of this.#waiting.values()) count += datagrams.length
    return count
  }

  /** Looks at a client's datagrams that came together. `key`: the session's ends. */
  look(key: string, datagrams: readonly Uint8Array[], now: number, helloMs: number): DatagramFinding {
    const former = this.#waiting.get(key)
    const quic = former?.quic ?? new QuicHello()
    let isWaiting = former !== undefined
    for (const datagram of datagrams) {
      const answer = quic.add(datagram)
      if (answer.kind === 'malformed') return this.#end(key, answer)
      if (answer.kind === 'match') {
        const finding: Finding = { protocol: 'quic', host: answer.finding.serverName }
        return this.#end(key, { kind: 'found', finding, quic, before: former?.datagrams ?? [] })
      }
      isWaiting ||= answer.kind === 'more' || looksLikeQuicInitial(datagram)
    }
    if (!isWaiting) {
      return { kind: 'found', finding: UNKNOWN, quic, before: [] }
    }
    return this.#hold(key, former ?? { quic, datagrams: [], bytes: 0, untilMs: now + helloMs }, datagrams)
  }

  /** How many datagrams are given up, because what they began was not complete in time. */
  expire(now: number): number {
    let lost = 0
    for (const [key, { untilMs, datagrams }] of this.#waiting) {
      if (untilMs > now) continue
      this.#waiting.delete(key)
      lost += datagrams.length
    }
    return lost
  }

  #hold(key: string, waiting: Waiting, datagrams: readonly Uint8Array[]): DatagramFinding {
    for (const datagram of datagrams) {
      waiting.datagrams.push(datagram.slice())
      waiting.bytes += datagram.length
    }
    if (waiting.datagrams.length > MOST_DATAGRAMS || waiting.bytes > MOST_BYTES) {
      return this.#end(key, { kind: 'malformed', why: `a hello of more than ${MOST_DATAGRAMS} datagrams` })
    }
    if (!this.#waiting.has(key) && this.#waiting.size >= MOST_WAITING) {
      this.#waiting.delete(this.#waiting.keys().next().value!)
    }
    this.#waiting.set(key, waiting)
    return { kind: 'held' }
  }

  #end(key: string, finding: DatagramFinding): DatagramFinding {
    this.#waiting.delete(key)
    return finding
  }
}
