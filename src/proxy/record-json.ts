import type { FlowRecord } from './record.ts'

// What JSON.stringify leaves as it is, and a terminal or a reader of lines may take for more than text: DEL and C1 (a CSI in one
// character), the separators of Unicode, and what changes the direction of text (Unicode TR 36 §2.7).
const UNSAFE = /[\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g

/** The record as one line of JSON, whatever is in it (T20); a microsecond is all that the durations can tell. `gateway`: of many that write to one place. */
export function flowJson(record: FlowRecord, gateway?: string): string {
  const text = JSON.stringify({
    ...(gateway === undefined ? {} : { gateway }),
    ...record,
    dialMs: inMicroseconds(record.dialMs),
    durationMs: inMicroseconds(record.durationMs),
  })
  return text.replace(UNSAFE, escaped)
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

function inMicroseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
