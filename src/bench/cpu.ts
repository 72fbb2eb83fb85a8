import { cpuSeconds, processTree } from '../lab/process-tree.ts'
import type { Latency } from './latencies.ts'
import type { Sample, Subject } from './suite.ts'

/** What a load did. */
export interface Load {
  /** What the cost is divided by: GB, or millions of requests, or of packets. */
  readonly units: number
  readonly rate: number
  readonly seconds: number
  readonly lostPercent?: number
  readonly latency?: Latency
}

/** Runs a load, and looks what it cost the proxy, with its workers where it has some. */
export async function measureCpu({ pid }: Subject, load: () => Promise<Load>): Promise<Sample> {
  const processes = pid === undefined ? undefined : processTree(pid)
  const before = processes === undefined ? 0 : cpuSeconds(processes)
  const { units, seconds, ...figures } = await load()
  const used = processes === undefined ? undefined : cpuSeconds(processes) - before
  return {
    ...figures,
    cost: used === undefined ? undefined : used / units,
    busy: used === undefined ? undefined : used / seconds,
  }
}
