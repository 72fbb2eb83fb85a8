import { looksLikeQuicInitial, QuicHello } from '../inspect/quic-initial.ts'
import { type Finding, UNKNOWN } from '../policy/facts.ts'
import { KeptDatagrams } from './kept-datagrams.ts'
import type { UdpContext } from './udp-context.ts'

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
  readonly #countDrop: UdpContext['countDrop']

  constructor(countDrop: UdpContext['countDrop']) {
    this.#countDrop = countDrop
  }

  /** Looks at a client's datagrams that came together. `key`: the session's ends. */
  look(key: string, datagrams: readonly Uint8Array[], now: number, helloMs: number): DatagramFinding {
    const former = this.#waiting.get(key)
    const quic = former?.quic ?? new QuicHello()
    const before = former?.kept.all.slice() ?? []
    let isWaiting = former !== undefined
    for (const datagram of datagrams) {
      const answer = quic.add(datagram)
      if (answer.kind === 'malformed') return this.#refuse(key, before.length)
      if (answer.kind === 'match') {
        this.#waiting.delete(key)
        return { kind: 'found', finding: { protocol: 'quic', host: answer.finding.serverName }, quic, before }
      }
      isWaiting ||= answer.kind === 'more' || looksLikeQuicInitial(datagram)
    }
    if (!isWaiting) return { kind: 'found', finding: UNKNOWN, quic, before }
    const waiting = former ?? { quic, kept: new KeptDatagrams(), untilMs: now + helloMs }
    for (const datagram of datagrams) if (!waiting.kept.keep(datagram)) return this.#refuse(key, before.length)
    if (former === undefined && this.#waiting.size >= MOST_WAITING) this.#giveUp(this.#waiting.keys().next().value!)
    this.#waiting.set(key, waiting)
    return { kind: 'held' }
  }

  /** Gives up what is not complete in time. */
  expire(now: number): void {
    for (const [key, { untilMs }] of this.#waiting) if (untilMs <= now) this.#giveUp(key)
  }

  #giveUp(key: string): void {
    this.#countDrop('hello-timeout', this.#waiting.get(key)!.kept.all.length)
    this.#waiting.delete(key)
  }

  /** `before`: how many datagrams were held back; those that came now are the caller's to count. */
  #refuse(key: string, before: number): DatagramFinding {
    this.#countDrop('malformed', before)
    this.#waiting.delete(key)
    return { kind: 'malformed' }
  }
}
