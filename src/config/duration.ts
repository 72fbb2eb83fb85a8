const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** The longest that a Node timer waits: 2^31 - 1 ms; more would fire at once. */
const MAX_MS = 2_147_483_647
export const LONGEST_DURATION = '24d'

/**
 * Milliseconds of `500ms`, `10s`, `5m`, `1.5h` or `1d`; `0` and `off` are 0, which switches a timeout off.
 * A number without a unit is refused, since nobody can tell what it means. Undefined when it is no duration, or longer
 * than 24 days.
 */
export function parseDuration(text: string): number | undefined {
  if (text === '0' || text === 'off') return 0
  const match = /^(\d{1,10}(?:\.\d{1,3})?)\s?(ms|s|m|h|d)$/.exec(text)
  if (match === null) return undefined
  const ms = Math.round(Number(match[1]) * UNITS[match[2]!]!)
  return ms <= MAX_MS ? ms : undefined
}

/** `10s`, `1.5s`, `500ms`: for people, two digits at most. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`
  const [unit, size] = ms < 60_000 ? ['s', 1000] : ms < 3_600_000 ? ['m', 60_000] : ['h', 3_600_000]
  return `${Number((ms / Number(size)).toPrecision(2))}${unit}`
}
