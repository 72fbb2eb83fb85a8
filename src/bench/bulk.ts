import { fileURLToPath } from 'node:url'
import type { Load } from './cpu.ts'
import { measureCpu } from './cpu.ts'
import { BULK_PORT } from './ports.ts'
import { type Case, costIn, rateIn, type Subject } from './suite.ts'

const RECEIVER_PROCESS = fileURLToPath(new URL('./receiver-process.js', import.meta.url))
const GIGA = 1e9

export function bulk(name: string, connections: number, without: readonly string[] = []): Case {
  return {
    name,
    title: `bulk from server to client, ${connections} connection${connections === 1 ? '' : 's'}`,
    figures: [rateIn('Gbit/s'), costIn('CPU s/GB')],
    without,
    measure: (subject, seconds) => measureCpu(subject, () => receiveBulk(subject, connections, seconds)),
  }
}

interface Received {
  /** With what came before all connections had data. */
  readonly all: number
  readonly bytes: number
  readonly seconds: number
}

/** Runs a load on Y. @throws LimpidError LIMPID_PROGRAM at the first wrong byte. */
export async function receiveBulk(subject: Subject, connections: number, seconds: number): Promise<Load> {
  const args = [RECEIVER_PROCESS, subject.dialled, String(BULK_PORT), String(connections), String(seconds)]
  const received = JSON.parse(await subject.topology.y.run(process.execPath, args)) as Received
  return {
    units: received.all / GIGA,
    rate: (received.bytes * 8) / GIGA / received.seconds,
    seconds: received.seconds,
  }
}
