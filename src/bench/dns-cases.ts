import { measureCpu } from './cpu.ts'
import { FRESH } from './dns-responder.ts'
import { runDnsperf } from './dnsperf.ts'
import { type Case, costIn, LOSSES, rateIn } from './suite.ts'

const CACHED_NAMES = 1_000 // a cache of 10,000 holds them
const FRESH_NAMES = 100_000

/** What is measured over DNS, in order. */
export const DNS_CASES: readonly Case[] = [
  queries('dns-cached', 'questions whose answers a cache has', 'c', CACHED_NAMES),
  queries('dns-uncached', 'questions that must be forwarded (TTL 0)', FRESH, FRESH_NAMES),
]

function queries(name: string, title: string, prefix: string, names: number): Case {
  return {
    name,
    title,
    figures: [rateIn('queries/s'), costIn('CPU µs/query'), LOSSES],
    needs: 'dnsperf',
    without: [],
    measure: (subject, seconds) =>
      measureCpu(subject, async () => {
        const load = { server: subject.dialled, prefix, names, seconds }
        const { answered, lost, seconds: elapsed } = await runDnsperf(subject.topology.y, load)
        return {
          units: answered / 1e6,
          rate: answered / elapsed,
          seconds: elapsed,
          lostPercent: (100 * lost) / (answered + lost),
        }
      }),
  }
}
