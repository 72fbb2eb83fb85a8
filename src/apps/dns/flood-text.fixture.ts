import type { FloodReport } from './flood.fixture.ts'

/** The report in a few lines. */
export function floodText({ sent, probes, memory, cpuSeconds, stats }: FloodReport): string {
  const { asked, again, lost } = probes
  const inMib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0)
  const counts = (all: Readonly<Record<string, number>>): string =>
    Object.entries(all)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ')
  return [
    `${sent} datagrams; ${asked} queries that mean it: ${asked - lost} answered, ${again} of them when asked again`,
    `memory after each tenth: ${memory.tenths.map(inMib).join(', ')} MiB; ${inMib(memory.most)} at the most; ${cpuSeconds} s of CPU`,
    `dns: ${counts(stats.apps.dns!)}`,
    `dropped: ${counts(stats.datagramsDropped)}`,
    `sessions: ${stats.flowsTotal} in all, ${stats.sessionsOpen} open, ${stats.evictions} evicted`,
  ].join('\n')
}
