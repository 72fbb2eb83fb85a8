import { readFileSync } from 'node:fs'
import type { Sample, Subject } from './suite.ts'

const TICKS_PER_SECOND = 100 // USER_HZ, the same on all architectures that Node runs on

/** User and system CPU seconds that a process has used, all threads together; steps of 10 ms. */
export function cpuSeconds(pid: number): number {
  // fields 14 and 15, counted from behind the command's closing parenthesis: proc_pid_stat(5)
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** What a load did. */
export interface Load {
  /** What the cost is divided by: GB, or millions of requests, or of packets. */
  readonly units: number
  readonly rate: number
  readonly seconds: number
  readonly lostPercent?: number
  readonly p99Ms?: number
}

/** Runs a load, and looks what it cost the proxy. */
export async function measureCpu({ pid }: Subject, load: () => Promise<Load>): Promise<Sample> {
  const before = pid === undefined ? 0 : cpuSeconds(pid)
  const { units, seconds, ...figures } = await load()
  const used = pid === undefined ? undefined : cpuSeconds(pid) - before
  return {
    ...figures,
    cost: used === undefined ? undefined : used / units,
    busy: used === undefined ? undefined : used / seconds,
  }
}
