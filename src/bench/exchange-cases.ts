import { receiveBulk } from './bulk.ts'
import { measureCpu } from './cpu.ts'
import { runExchange } from './exchange.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import type { Latency } from './latencies.ts'
import { HTTP_PORT } from './ports.ts'
import { type Case, costIn, type Figure, latencyIn, rateIn, type Sample, type Subject } from './suite.ts'
import { runWrk } from './wrk.ts'

const KEPT = 64
const RECORD_BYTES = 16_384 // the most that a TLS record carries, RFC 8446 §5.1

/** Messages as large as TLS's records, there and back. */
export const RECORDS: Case = {
  name: 'records',
  title: `messages of ${RECORD_BYTES / 1024} KiB there and back, ${KEPT} kept connections`,
  figures: [rateIn('messages/s'), costIn('CPU µs/message')],
  without: ['node-pipe'],
  measure: (subject, seconds) =>
    measureCpu(subject, () => runExchange(subject, { connections: KEPT, size: RECORD_BYTES }, seconds)),
}

const MESSAGE_BYTES = 128
/** What differs by less is the same: a thousandth of a millisecond. */
const LEAST_MS = 0.001

/** What is on top of the latency that the kernel alone has in the same round. */
function addedIn(unit: string, of: (latency: Latency) => number): Figure {
  return {
    unit: `ms ${unit} added`,
    better: 'less',
    isCompared: true,
    of: ({ latency }, kernel) => {
      if (latency === undefined || kernel?.latency === undefined) return undefined
      return Math.max(LEAST_MS, of(latency) - of(kernel.latency))
    },
  }
}

/** Latency at a fixed rate, the same for all: half of what HAProxy (or, without it, the first subject) can do. */
export function latencyAtHalfLoad(without: readonly string[]): Case {
  let rate = 0
  return {
    name: 'latency',
    title: `latency of ${MESSAGE_BYTES}-byte messages at half of HAProxy's rate, ${KEPT} kept connections`,
    figures: [
      costIn('CPU µs/message'),
      latencyIn('p50', ({ p50Ms }) => p50Ms),
      latencyIn('p99', ({ p99Ms }) => p99Ms),
      latencyIn('p99.9', ({ p999Ms }) => p999Ms),
      addedIn('p50', ({ p50Ms }) => p50Ms),
      addedIn('p99', ({ p99Ms }) => p99Ms),
      addedIn('p99.9', ({ p999Ms }) => p999Ms),
    ],
    needs: 'wrk',
    without,
    prepare: async (subjects) => {
      const judge = subjects.find(({ name }) => name === 'haproxy') ?? subjects[0]!
      const most = await keepAliveRate(judge)
      rate = Math.round(most / 200) * 100
      return `latency: ${rate} messages/s, half of the requests that ${judge.name} does on ${KEPT} kept connections`
    },
    measure: (subject, seconds) =>
      measureCpu(subject, () => runExchange(subject, { connections: KEPT, size: MESSAGE_BYTES, rate }, seconds)),
  }
}

async function keepAliveRate(subject: Subject): Promise<number> {
  const url = `http://${subject.dialled}:${HTTP_PORT}/`
  const load = { url, connections: KEPT, seconds: 2, close: false, responseBytes: RESPONSE_BYTES.keep }
  const { requests, seconds } = await runWrk(subject.topology.y, load)
  return requests / seconds
}

const BULK_CONNECTIONS = 4
/** Few, and on so many connections that hardly one waits for another. */
const SMALL = { connections: 64, size: 64, rate: 500 } as const
/** The bulk begins before, and ends after, the small messages that are counted beside it. */
const SMALL_SHARE = 0.6

/** What bulk does to those who share the proxy with it. */
export const MIXED: Case = {
  name: 'mixed',
  title: `${BULK_CONNECTIONS} bulk connections, and ${SMALL.size}-byte messages at ${SMALL.rate}/s beside them`,
  figures: [
    rateIn('Gbit/s'),
    costIn('CPU s/GB'),
    latencyIn('p99', ({ p99Ms }) => p99Ms),
    { unit: 'ms p99 alone', better: 'less', isCompared: false, of: ({ aloneP99Ms }) => aloneP99Ms },
    { unit: 'p99 ÷ alone', better: 'less', isCompared: true, of: slowdown },
  ],
  without: ['nginx', 'node-pipe'],
  measure: async (subject, seconds) => {
    const alone = await runExchange(subject, SMALL, seconds)
    const sample = await measureCpu(subject, async () => {
      const [bulk, small] = await Promise.all([
        receiveBulk(subject, BULK_CONNECTIONS, seconds),
        runExchange(subject, SMALL, seconds * SMALL_SHARE),
      ])
      return { ...bulk, latency: small.latency }
    })
    return { ...sample, aloneP99Ms: alone.latency.p99Ms }
  },
}

function slowdown({ latency, aloneP99Ms }: Sample): number | undefined {
  return latency === undefined || aloneP99Ms === undefined ? undefined : latency.p99Ms / aloneP99Ms
}
