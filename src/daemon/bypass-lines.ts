import { counted } from '../net/counted.ts'
import { formatPrefix, type Prefix } from '../net/prefix.ts'
import type { BypassAccounts, BypassCounts } from '../ruleset/bypass-account.ts'

const LINES = 32 // of the prefixes with the most bytes; the total has the others, too

/** What the kernel has forwarded by itself: a line for each prefix, and one for all where these do not say it. */
export function bypassLines(accounts: BypassAccounts, configured: readonly Prefix[]): string[] {
  const own = new Set(configured.map(formatPrefix))
  const told = [...accounts.of]
    .filter(([key, { connections, packets }]) => own.has(key) || connections + (packets ?? 0) > 0)
    .toSorted(([, a], [, b]) => (b.bytes ?? b.connections) - (a.bytes ?? a.connections))
  const { total } = accounts
  const isAll =
    told.length === 1 && told[0]![1].connections === total.connections && told[0]![1].packets === total.packets
  return [
    ...told.slice(0, LINES).map(([key, counts]) => `bypass ${key}: ${countsText(counts)}`),
    ...(told.length > LINES ? [`bypass: ${told.length - LINES} more prefixes`] : []),
    ...(isAll || total.connections + (total.packets ?? 0) === 0 ? [] : [`bypass in all: ${countsText(total)}`]),
  ]
}

function countsText({ connections, packets, bytes }: BypassCounts): string {
  const flows = counted(connections, 'connection')
  return packets === undefined ? flows : `${flows}, ${counted(packets, 'packet')}, ${bytes ?? 0} bytes`
}
