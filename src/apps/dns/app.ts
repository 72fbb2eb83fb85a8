import type { App, DatagramApp, StreamApp } from '../../proxy/app.ts'
import type { Questions } from '../../proxy/questions.ts'
import { Answers, type DnsListener } from './answers.ts'
import { coarseClock } from './clock.ts'
import { dnsCounters } from './counters.ts'
import { DnsDatagrams } from './datagrams.ts'
import type { LearntNames } from './learnt.ts'
import { DnsStream } from './stream.ts'

export interface DnsAppOptions {
  /** Where the names that clients learn are noted; left out: nowhere, which saves some time for each answer. */
  readonly learnt?: LearntNames | undefined
  /** Who decides questions before the app's own rules do; left out: nobody. */
  readonly questions?: Questions | undefined
  /** Monotonic milliseconds. */
  readonly now?: () => number
}

/** DNS of one listener, by UDP and TCP: rules, a cache, and forwarding with ids of our own. */
export class DnsApp implements App {
  readonly datagrams: DatagramApp
  readonly streams: StreamApp
  readonly #counters = dnsCounters()
  readonly #answers: Answers

  constructor(listener: DnsListener, { learnt, questions, now = coarseClock() }: DnsAppOptions = {}) {
    this.#answers = new Answers(listener, this.#counters, { learnt, questions })
    this.datagrams = new DnsDatagrams(this.#answers, this.#counters, now)
    this.streams = {
      serve: (client, flow) =>
        new DnsStream(client, flow, { answers: this.#answers, counters: this.#counters, now }).run(),
    }
  }

  stats(): Readonly<Record<string, number>> {
    const { dropped, ...counted } = this.#counters
    const { cache } = this.#answers
    return {
      ...counted,
      ...dropped,
      cacheEntries: cache?.entries ?? 0,
      cacheBytes: cache?.bytes ?? 0,
      cacheEvicted: cache?.evicted ?? 0,
    }
  }
}
