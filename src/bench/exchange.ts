import { fileURLToPath } from 'node:url'
import type { Load } from './cpu.ts'
import type { Latency } from './latencies.ts'
import { ECHO_PORT } from './ports.ts'
import type { Subject } from './suite.ts'

const PROCESS = fileURLToPath(new URL('./exchange-process.js', import.meta.url))

/** Messages that come back, on connections that stay. */
export interface Exchange {
  readonly connections: number
  /** Bytes of each message. */
  readonly size: number
  /**
   * Messages a second of all connections together, whatever becomes of those before: each is counted from when it was due.
   * Without it every connection sends its next message when the one before has come back.
   */
  readonly rate?: number
}

/** What the load's process is told. */
export interface ExchangeLoad extends Exchange {
  readonly address: string
  readonly port: number
  readonly seconds: number
}

export interface ExchangeResult {
  /** Messages that came back, with those before counting began. */
  readonly all: number
  /** Those that were counted. */
  readonly counted: number
  readonly seconds: number
  readonly latency: Latency
}

/** What a load did, and how long its messages took. */
export type TimedLoad = Load & { readonly latency: Latency }

/**
 * Runs a load on Y through a subject.
 * @throws LimpidError LIMPID_PROGRAM at the first wrong byte, and when messages do not come back.
 */
export async function runExchange(subject: Subject, exchange: Exchange, seconds: number): Promise<TimedLoad> {
  const load: ExchangeLoad = { ...exchange, address: subject.dialled, port: ECHO_PORT, seconds }
  const output = await subject.topology.y.run(process.execPath, [PROCESS, JSON.stringify(load)])
  const { all, counted, seconds: elapsed, latency } = JSON.parse(output) as ExchangeResult
  return { units: all / 1e6, rate: counted / elapsed, seconds: elapsed, latency }
}
