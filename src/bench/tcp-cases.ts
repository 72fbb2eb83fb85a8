import { fileURLToPath } from 'node:url'
import { ADDRESSES } from '../lab/topology.ts'
import { measureCpu } from './cpu.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import { BULK_PORT, HTTP_PORT } from './ports.ts'
import { type Case, costIn, rateIn } from './suite.ts'
import { runWrk } from './wrk.ts'

const RECEIVER_PROCESS = fileURLToPath(new URL('./receiver-process.js', import.meta.url))
const SERVER = ADDRESSES[4].z
const GIGA = 1e9

/** What is measured over TCP, in order. */
export const TCP_CASES: readonly Case[] = [
  bulk('bulk-1', 1),
  bulk('bulk-8', 8),
  requests('keep-alive', 'requests on 64 kept connections', 'requests/s', 'CPU µs/request', false),
  requests(
    'connections',
    'a new connection for each request, 64 at a time',
    'connections/s',
    'CPU µs/connection',
    true,
  ),
]

function bulk(name: string, connections: number): Case {
  return {
    name,
    title: `bulk from server to client, ${connections} connection${connections === 1 ? '' : 's'}`,
    figures: [rateIn('Gbit/s'), costIn('CPU s/GB')],
    without: [],
    measure: async (subject, seconds) => {
      const args = [RECEIVER_PROCESS, SERVER, String(BULK_PORT), String(connections), String(seconds)]
      const load = async () => {
        const { bytes, seconds } = JSON.parse(await subject.topology.y.run(process.execPath, args)) as Received
        return { units: bytes / GIGA, rate: (bytes * 8) / GIGA / seconds, seconds }
      }
      return await measureCpu(subject, load)
    },
  }
}

interface Received {
  readonly bytes: number
  readonly seconds: number
}

function requests(name: string, title: string, rateUnit: string, costUnit: string, close: boolean): Case {
  const responseBytes = close ? RESPONSE_BYTES.close : RESPONSE_BYTES.keep
  return {
    name,
    title,
    figures: [rateIn(rateUnit), costIn(costUnit)],
    needs: 'wrk',
    without: ['haproxy-splice'], // nobody splices messages this small
    measure: async (subject, seconds) => {
      const url = `http://${SERVER}:${HTTP_PORT}/`
      return await measureCpu(subject, async () => {
        const summary = await runWrk(subject.topology.y, { url, connections: 64, seconds, close, responseBytes })
        const { requests, p99Ms } = summary
        return { units: requests / 1e6, rate: requests / summary.seconds, seconds: summary.seconds, p99Ms }
      })
    },
  }
}
