import { fileURLToPath } from 'node:url'
import { ADDRESSES } from '../lab/topology.ts'
import { cpuSeconds } from './cpu.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import { BULK_PORT, HTTP_PORT } from './ports.ts'
import type { Subject, SubjectName } from './subjects.ts'
import { runWrk } from './wrk.ts'

const RECEIVER_PROCESS = fileURLToPath(new URL('./receiver-process.js', import.meta.url))
const SERVER = ADDRESSES[4].z
const GIGA = 1e9

/** One measurement of one subject. */
export interface Sample {
  /** In the case's unit of rate. */
  readonly rate: number
  /** The proxy's CPU in the case's unit of cost; undefined without a proxy. */
  readonly cost: number | undefined
  /** CPU seconds of the proxy for each second that passed; near 1, its one thread was the limit. */
  readonly busy: number | undefined
  readonly p99Ms?: number
}

export interface Case {
  readonly name: string
  readonly title: string
  readonly rateUnit: string
  readonly costUnit: string
  /** Needs the program wrk. */
  readonly needsWrk: boolean
  /** Left out: where it would say nothing new. */
  readonly without: readonly SubjectName[]
  measure(subject: Subject, seconds: number): Promise<Sample>
}

/** What is measured, in order. */
export const CASES: readonly Case[] = [
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
    rateUnit: 'Gbit/s',
    costUnit: 'CPU s/GB',
    needsWrk: false,
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
    rateUnit,
    costUnit,
    needsWrk: true,
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

interface Load {
  /** What the cost is divided by: GB, or millions of requests. */
  readonly units: number
  readonly rate: number
  readonly seconds: number
  readonly p99Ms?: number
}

async function measureCpu({ pid }: Subject, load: () => Promise<Load>): Promise<Sample> {
  const before = pid === undefined ? 0 : cpuSeconds(pid)
  const { units, seconds, ...figures } = await load()
  const used = pid === undefined ? undefined : cpuSeconds(pid) - before
  return {
    ...figures,
    cost: used === undefined ? undefined : used / units,
    busy: used === undefined ? undefined : used / seconds,
  }
}
