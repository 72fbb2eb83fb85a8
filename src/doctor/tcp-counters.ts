import { readFileSync } from 'node:fs'

/** Counters of /proc/net/netstat that tell of packets which died without a trace (nstat(8)). */
export interface TcpCounters {
  /** Dropped by rp_filter. */
  readonly reversePath: number
  /** Had no route. */
  readonly noRoute: number
}

/** Of the calling thread's network namespace, since it was made. */
export function readTcpCounters(): TcpCounters {
  return parseTcpCounters(readFileSync('/proc/thread-self/net/netstat', 'latin1'))
}

/** Lines come in pairs: `TcpExt: names`, `TcpExt: values`. */
export function parseTcpCounters(text: string): TcpCounters {
  const values = new Map<string, number>()
  const lines = text.split('\n')
  for (let at = 0; at + 1 < lines.length; at += 2) {
    const names = lines[at]!.split(' ')
    const numbers = lines[at + 1]!.split(' ')
    for (let column = 1; column < names.length; column++) values.set(names[column]!, Number(numbers[column]))
  }
  return { reversePath: values.get('IPReversePathFilter') ?? 0, noRoute: values.get('InNoRoutes') ?? 0 }
}
