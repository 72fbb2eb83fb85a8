import { nearest } from './nearest.ts'
import type { ValueKind } from './values.ts'

/** The largest datagram fits, and has a chance. */
export const LEAST_BURST_BYTES = 100_000
const MOST_BYTES = 100_000_000_000
const LEAST_BYTES_PER_SECOND = 1_000

const BYTES: Readonly<Record<string, number>> = { '': 1, k: 1e3, M: 1e6, G: 1e9 }
const BITS: Readonly<Record<string, number>> = { bit: 1 / 8, kbit: 125, Mbit: 125e3, Gbit: 125e6 }
const UNITS: Readonly<Record<string, number>> = { ...BYTES, ...BITS }

/** `500k/s`, `10M/s`, `1.5G/s`, `80Mbit/s`: bytes a second. Decimal, as of lines. */
export const BYTE_RATE: ValueKind<number> = {
  expected: 'bytes or bits a second from 1k/s to 100G/s, such as 500k/s, 10M/s or 80Mbit/s',
  parse: (text) => {
    const [, count, unit] = /^(\d{1,12}(?:\.\d{1,3})?)([kMG]?(?:bit)?)\/s$/.exec(text) ?? []
    return withinBounds(count, UNITS[unit ?? ''], LEAST_BYTES_PER_SECOND)
  },
  suggest: (text) => {
    const [, count, unit] = /^([\d.]+) ?([a-z]*?)B?(?:\/s|ps)?$/i.exec(text) ?? []
    const known = unit === undefined || unit === '' ? unit : nearest(unit, Object.keys(UNITS).slice(1))
    return count === undefined || known === undefined ? undefined : `${count}${known}/s`
  },
  hint: (text) => (/^[\d.]+ ?[kmg]i?b/i.test(text) ? 'M is a million bytes, Mbit a million bits' : undefined),
}

/** `100k`, `2M`, `1G`: bytes. */
export const BYTE_COUNT: ValueKind<number> = {
  expected: 'a number of bytes from 100k to 100G, such as 500k, 2M or 1G',
  parse: (text) => {
    const [, count, unit] = /^(\d{1,12}(?:\.\d{1,3})?)([kMG]?)$/.exec(text) ?? []
    return withinBounds(count, BYTES[unit ?? ''], LEAST_BURST_BYTES)
  },
}

function withinBounds(count: string | undefined, unit: number | undefined, least: number): number | undefined {
  if (count === undefined || unit === undefined) return undefined
  const bytes = Math.floor(Number(count) * unit)
  return bytes >= least && bytes <= MOST_BYTES ? bytes : undefined
}

/** `10M/s`: for people, exact. */
export function formatBytes(bytes: number): string {
  const [unit, size] = Object.entries(BYTES).findLast(([, size]) => bytes >= size && bytes % (size / 1e3) === 0) ?? [
    '',
    1,
  ]
  return `${bytes / size}${unit}`
}
