import { looksLikeQuicInitial, QuicHello } from '../inspect/quic-initial.ts'
import { type Finding, UNKNOWN } from '../policy/facts.ts'
import { KeptDatagrams } from './kept-datagrams.ts'

/** Clients whose first datagrams wait at once; the one that waits longest makes room. */
const MOST_WAITING = 1_024

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
  /** It breaks the rules of QUIC, or is too long. */
  | { readonly kind: 'malformed' }

interface Waiting {
  readonly quic: QuicHello
  readonly kept: KeptDatagrams
  readonly untilMs: number
}

/**
 * Datagrams of sessions that a policy has not decided yet, because a QUIC client's hello is longer than one of them. Nothing of a session
 * exists meanwhile. Times are monotonic milliseconds.
 */
export class UnfinishedHellos {
  readonly #waiting = new Map<string, Waiting>()

  /** Looks at a client's datagrams that came together. `key`: the session's ends. */
  look(key: string, datagrams: readonly Uint8Array[], now: number, helloMs: number): DatagramFinding {
    const former = this.#waiting.get(key)
    const quic = former?.quic ?? new QuicHello()
    let isWaiting = former !== undefined
    for (const datagram of datagrams) {
      const answer = quic.add(datagram)
      if (answer.kind === 'malformed') return this.#end(key, { kind: 'malformed' })
      if (answer.kind === 'match') {
        const finding: Finding = { protocol: 'quic', host: answer.finding.serverName }
        return this.#end(key, { kind: 'found', finding, quic, before: former?.kept.all ?? [] })
      }
      isWaiting ||= answer.kind === 'more' || looksLikeQuicInitial(datagram)
    }
    if (!isWaiting) {
      return { kind: 'found', finding: UNKNOWN, quic, before: [] }
    }
    return this.#hold(key, former ?? { quic, kept: new KeptDatagrams(), untilMs: now + helloMs }, datagrams)
  }

  /** How many datagrams are given up, because what they began was not complete in time. */
  expire(now: number): number {
    let lost = 0
    for (const [key, { untilMs, kept }] of this.#waiting) {
      if (untilMs > now) continue
      this.#waiting.delete(key)
      lost += kept.all.length
    }
    return lost
  }

  #hold(key: string, waiting: Waiting, datagrams: readonly Uint8Array[]): DatagramFinding {
    for (const datagram of datagrams) {
      if (!waiting.kept.keep(datagram)) return this.#end(key, { kind: 'malformed' })
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
