import { printable } from '../net/printable.ts'
import type { FlowRecord } from './record.ts'

/** The record as one line of JSON, whatever is in it (T20); a microsecond is all that the durations can tell. `gateway`: of many that write to one place. */
export function flowJson(record: FlowRecord, gateway?: string): string {
  const text = JSON.stringify({
    ...(gateway === undefined ? {} : { gateway }),
    ...record,
    dialMs: inMicroseconds(record.dialMs),
    durationMs: inMicroseconds(record.durationMs),
  })
  return printable(text) // JSON leaves DEL, C1 and the like as they are
}

function inMicroseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
