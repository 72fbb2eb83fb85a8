import { fileURLToPath } from 'node:url'
import { processTree, userBytes } from '../lab/process-tree.ts'
import { receiveBulk } from './bulk.ts'
import { type Load, measureCpu } from './cpu.ts'
import { runExchange } from './exchange.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import { ECHO_PORT, HTTP_PORT } from './ports.ts'
import { type Case, costIn, latencyIn, MEGABYTES, rateIn, type Sample, type Subject } from './suite.ts'
import { runWrk } from './wrk.ts'

const PROCESS = fileURLToPath(new URL('./arrivals-process.js', import.meta.url))
/** New connections a second beside other flows: far less than either can do. */
const RATE = 500
const KEPT = { connections: 64, size: 64 } as const
const MEGA = 1e6

/** What the process of the arrivals did. */
export interface Arrivals {
  readonly connections: number
  readonly seconds: number
}

/** What a hook that waits costs the flows that it is asked about, and those that it is not. */
export const HOOK_CASES: readonly Case[] = [
  {
    name: 'hook-connections',
    title: 'a new connection for each request, 64 at a time, each decided by the hook',
    figures: [rateIn('connections/s'), costIn('CPU µs/connection'), latencyIn('p50', ({ p50Ms }) => p50Ms), MEGABYTES],
    needs: 'wrk',
    without: [],
    measure: (subject, seconds) =>
      weighed(subject, async () => {
        const url = `http://${subject.dialled}:${HTTP_PORT}/`
        const load = { url, connections: 64, seconds, close: true, responseBytes: RESPONSE_BYTES.close }
        const { requests, seconds: elapsed, p50Ms, p99Ms } = await runWrk(subject.topology.y, load)
        const latency = { p50Ms, p99Ms, p999Ms: Number.NaN }
        return { units: requests / MEGA, rate: requests / elapsed, seconds: elapsed, latency }
      }),
  },
  beside('hook-bulk', 'a bulk connection', 'Gbit/s', (subject, seconds) => receiveBulk(subject, 1, seconds)),
  beside('hook-requests', `messages on ${KEPT.connections} kept connections`, 'messages/s', (subject, seconds) =>
    runExchange(subject, KEPT, seconds),
  ),
]

/** Flows that were decided before, while others are. */
function beside(
  name: string,
  what: string,
  unit: string,
  run: (subject: Subject, seconds: number) => Promise<Load>,
): Case {
  return {
    name,
    title: `${what} beside ${RATE} new connections/s`,
    figures: [rateIn(unit), MEGABYTES],
    without: [],
    measure: (subject, seconds) =>
      weighed(subject, async () => {
        const args = [PROCESS, subject.dialled, String(ECHO_PORT), String(RATE), String(seconds + 1)]
        const [load] = await Promise.all([run(subject, seconds), subject.topology.y.run(process.execPath, args)])
        return load
      }),
  }
}

/** With the memory that the proxy has afterwards. */
async function weighed(subject: Subject, load: () => Promise<Load>): Promise<Sample> {
  const sample = await measureCpu(subject, load)
  return { ...sample, megabytes: userBytes(processTree(subject.pid!)) / MEGA }
}
