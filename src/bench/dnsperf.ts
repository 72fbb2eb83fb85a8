import { LimpidError } from '../errors.ts'
import type { Host } from '../lab/host.ts'
import { writeRunFile } from './on-topology.ts'
import { DNS_PORT } from './ports.ts'

const CLIENTS = 64 // with a port of its own each
const OUTSTANDING = 128
const PATIENCE_SECONDS = 1

export interface DnsLoad {
  /** The address asked. */
  readonly server: string
  /** What the names begin with. */
  readonly prefix: string
  /** How many names, asked one after the other, again and again. */
  readonly names: number
  readonly seconds: number
}

/** What one run of dnsperf did. */
export interface DnsSummary {
  readonly answered: number
  readonly lost: number
  readonly seconds: number
}

/**
 * Runs dnsperf with one thread for sending and one for receiving.
 * @throws LimpidError LIMPID_LAB when nothing was answered, or something with another code than NOERROR.
 */
export async function runDnsperf(host: Host, load: DnsLoad): Promise<DnsSummary> {
  const lines = Array.from({ length: load.names }, (_, i) => `${load.prefix}${i}.bench.example A\n`)
  const file = writeRunFile(`${load.prefix}.names`, lines.join(''))
  const args = ['-s', load.server, '-p', String(DNS_PORT), '-d', file, '-l', String(load.seconds)]
  args.push('-c', String(CLIENTS), '-T', '1', '-q', String(OUTSTANDING), '-t', String(PATIENCE_SECONDS))
  return readSummary(await host.run('dnsperf', args))
}

/** Reads dnsperf's report. @throws as runDnsperf(). */
export function readSummary(output: string): DnsSummary {
  const number = (pattern: RegExp): number | undefined => {
    const text = pattern.exec(output)?.[1]
    return text === undefined ? undefined : Number(text)
  }
  const answered = number(/Queries completed:\s+(\d+)/)
  const lost = number(/Queries lost:\s+(\d+)/)
  const seconds = number(/Run time \(s\):\s+([\d.]+)/)
  if (answered === undefined || lost === undefined || seconds === undefined || answered === 0) {
    throw new LimpidError('LIMPID_LAB', `dnsperf got no answers: ${output.trim()}`)
  }
  const good = number(/Response codes:.*NOERROR (\d+)/) ?? 0
  if (good !== answered) {
    throw new LimpidError(
      'LIMPID_LAB',
      `dnsperf got ${answered - good} of ${answered} answers that are errors: ${output}`,
    )
  }
  return { answered, lost, seconds }
}
