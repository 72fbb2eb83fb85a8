import type { ProxyStats } from '../proxy/stats.ts'

/** Of this moment, not since the start: they go with the process that had them. */
const GAUGES = [
  'flowsOpen',
  'flowsLimit',
  'waitingBytes',
  'pipesOpen',
  'sessionsOpen',
  'sessionsLimit',
  'replySockets',
  'hooksWaiting',
] as const satisfies readonly (keyof ProxyStats)[]

/** The counters and gauges of several proxies, one at least, as those of one. */
export function sumStats(all: readonly ProxyStats[]): ProxyStats {
  return all.reduce((sum, stats) => sumRecords(sum, stats) as unknown as ProxyStats)
}

/** What is left of a proxy that has ended: its counters. */
export function countersOf(stats: ProxyStats): ProxyStats {
  const pools = Object.entries(stats.pools).map(([name, servers]) => [
    name,
    Object.fromEntries(Object.entries(servers).map(([server, one]) => [server, { ...one, flows: 0, up: 0 }])),
  ])
  return { ...stats, ...Object.fromEntries(GAUGES.map((name) => [name, 0])), pools: Object.fromEntries(pools) }
}

/** Field by field, and so on within: a field that one of them lacks is that of the other. */
function sumRecords(a: object, b: object): Record<string, unknown> {
  const sum: Record<string, unknown> = { ...a }
  for (const [name, value] of Object.entries(b)) {
    const other = sum[name]
    if (value === undefined) continue
    if (other === undefined) sum[name] = value
    else if (typeof value === 'number') sum[name] = (other as number) + value
    else sum[name] = sumRecords(other as object, value as object)
  }
  return sum
}
