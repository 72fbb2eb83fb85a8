import { LimpidError } from '../errors.ts'
import type { Host } from '../lab/host.ts'
import { writeRunFile } from './on-topology.ts'

/** Runs once, after the load: wrk's own report rounds. A script that has only done() costs nothing before. */
const SUMMARY_SCRIPT = `done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nsummary {"requests":%d,"bytes":%d,"seconds":%f,"errors":%d,"p50Ms":%f,"p99Ms":%f}\\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
`
const SUMMARY = /^summary (\{.*\})$/m

/** Says these in turn, whatever they are. What it is asked for first is not sent: wrk looks whether that is HTTP. */
function requestScript(requests: readonly Uint8Array[]): string {
  const literals = requests.map(
    (bytes) => `"${[...bytes].map((byte) => `\\${String(byte).padStart(3, '0')}`).join('')}"`,
  )
  return `local all = { ${literals.join(', ')} }
local turn = -1
request = function()
  turn = turn + 1
  if turn == 0 then return 'GET / HTTP/1.1\\r\\n\\r\\n' end
  return all[turn % #all + 1]
end
`
}

/** What one run of wrk did. */
export interface WrkSummary {
  readonly requests: number
  /** Of responses. */
  readonly bytes: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface WrkLoad {
  readonly url: string
  readonly connections: number
  /** wrk takes whole seconds only. */
  readonly seconds: number
  /** One connection for each request. */
  readonly close: boolean
  /** What is sent in place of HTTP requests; the answer has to be a response of HTTP all the same. */
  readonly requests?: readonly Uint8Array[]
  /** Bytes of each response, headers and all. */
  readonly responseBytes: number
}

/**
 * Runs wrk with one thread.
 * @throws LimpidError LIMPID_LAB when a request failed, or the bytes received are not those of the responses counted.
 */
export async function runWrk(host: Host, load: WrkLoad): Promise<WrkSummary> {
  const script = writeRunFile(
    'summary.lua',
    SUMMARY_SCRIPT + (load.requests === undefined ? '' : requestScript(load.requests)),
  )
  const header = load.close ? ['-H', 'Connection: close'] : []
  const args = ['-t', '1', '-c', String(load.connections), '-d', `${load.seconds}s`, '-s', script, ...header, load.url]
  return checkedSummary(await host.run('wrk', args), load)
}

/** Reads wrk's output, and holds it against the load. */
export function checkedSummary(
  output: string,
  { connections, responseBytes }: Pick<WrkLoad, 'connections' | 'responseBytes'>,
): WrkSummary {
  const line = SUMMARY.exec(output)?.[1]
  if (line === undefined) throw new LimpidError('LIMPID_LAB', `wrk printed no summary: ${output.trim()}`)
  const { errors, ...summary } = JSON.parse(line) as WrkSummary & { errors: number }
  if (errors > 0) throw new LimpidError('LIMPID_LAB', `${errors} of ${summary.requests} requests failed: ${output}`)
  if (summary.requests === 0) throw new LimpidError('LIMPID_LAB', 'wrk got no response')
  // at the end each connection may be in the middle of a response
  const stray = Math.abs(summary.bytes - summary.requests * responseBytes)
  if (stray > connections * responseBytes) {
    throw new LimpidError(
      'LIMPID_LAB',
      `${summary.bytes} bytes in ${summary.requests} responses of ${responseBytes} bytes`,
    )
  }
  return summary
}
