import { bulk } from './bulk.ts'
import { measureCpu } from './cpu.ts'
import { latencyAtHalfLoad, MIXED, RECORDS } from './exchange-cases.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import { HTTP_PORT } from './ports.ts'
import { type Case, costIn, rateIn } from './suite.ts'
import { runWrk } from './wrk.ts'

/** Nobody splices messages this small. */
const SPLICER = 'haproxy-splice'
/** Left out with 64 bulk connections: it accepts one a turn of its loop, and then it is seconds until all have data. */
const PIPE = 'node-pipe'
const NGINX = 'nginx'

/** What is measured over TCP, in order. */
export const TCP_CASES: readonly Case[] = [
  bulk('bulk-1', 1),
  bulk('bulk-4', 4, [NGINX]),
  bulk('bulk-64', 64, [PIPE]),
  keepAlive('keep-alive-1', 1, [SPLICER, NGINX, PIPE]),
  keepAlive('keep-alive', 64, [SPLICER]),
  keepAlive('keep-alive-1000', 1000, [SPLICER]),
  connections('connections', [SPLICER]),
  RECORDS,
  latencyAtHalfLoad([SPLICER, PIPE]),
  MIXED,
]

/** With two workers, or threads. */
export const WORKERS_CASES: readonly Case[] = [
  bulk('workers-bulk-64', 64),
  keepAlive('workers-keep-alive', 64),
  keepAlive('workers-keep-alive-1000', 1000),
  connections('workers-connections'),
]

/** Flows that the kernel forwards. */
export const BYPASS_CASES: readonly Case[] = [bulk('bypass-bulk-1', 1), connections('bypass-connections')]

/** Which are measured against another revision, unless others are chosen. */
export const REVISION_CASES: readonly string[] = ['bulk-1', 'keep-alive', 'connections']

function keepAlive(name: string, connections: number, without: readonly string[] = []): Case {
  const title = `requests on ${connections} kept connection${connections === 1 ? '' : 's'}`
  return requests(name, title, 'request', { connections, close: false }, without)
}

function connections(name: string, without: readonly string[] = []): Case {
  const load = { connections: 64, close: true }
  return requests(name, 'a new connection for each request, 64 at a time', 'connection', load, without)
}

function requests(
  name: string,
  title: string,
  unit: string,
  load: { readonly connections: number; readonly close: boolean },
  without: readonly string[],
): Case {
  const responseBytes = load.close ? RESPONSE_BYTES.close : RESPONSE_BYTES.keep
  return {
    name,
    title,
    figures: [rateIn(`${unit}s/s`), costIn(`CPU µs/${unit}`)],
    needs: 'wrk',
    without,
    measure: (subject, seconds) =>
      measureCpu(subject, async () => {
        const url = `http://${subject.dialled}:${HTTP_PORT}/`
        const { requests, seconds: elapsed } = await runWrk(subject.topology.y, {
          url,
          seconds,
          responseBytes,
          ...load,
        })
        return { units: requests / 1e6, rate: requests / elapsed, seconds: elapsed }
      }),
  }
}
