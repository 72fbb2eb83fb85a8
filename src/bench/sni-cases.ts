import { helloFor, SERVER_NAMES } from './client-hello.ts'
import { measureCpu } from './cpu.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import type { Latency } from './latencies.ts'
import { TLS_PORT } from './ports.ts'
import { type Case, costIn, latencyIn, rateIn } from './suite.ts'
import { runWrk } from './wrk.ts'

const HELLOS = SERVER_NAMES.map(helloFor)

/** Reading a hello, choosing a server by its name, and dialling it. */
export const SNI_CASES: readonly Case[] = [
  {
    name: 'sni',
    title: 'a new connection for each ClientHello, routed by its name, 64 at a time',
    figures: [
      rateIn('connections/s'),
      costIn('CPU µs/connection'),
      latencyIn('p50', ({ p50Ms }) => p50Ms, true),
      latencyIn('p99', ({ p99Ms }) => p99Ms, true),
    ],
    needs: 'wrk',
    without: [],
    measure: (subject, seconds) =>
      measureCpu(subject, async () => {
        const done = await runWrk(subject.topology.y, {
          url: `http://${subject.dialled}:${TLS_PORT}/`,
          connections: 64,
          seconds,
          close: true,
          requests: HELLOS,
          responseBytes: RESPONSE_BYTES.close,
        })
        const { requests, seconds: elapsed, p50Ms, p99Ms } = done
        const latency: Latency = { p50Ms, p99Ms, p999Ms: Number.NaN }
        return { units: requests / 1e6, rate: requests / elapsed, seconds: elapsed, latency }
      }),
  },
]
