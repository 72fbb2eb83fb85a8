import { parsePort } from './address.ts'

/** Inclusive; a single number has `from === to`. */
export interface NumberRange {
  readonly from: number
  readonly to: number
}

/** An inclusive range of ports. */
export type PortRange = NumberRange

export const ALL_PORTS: readonly PortRange[] = [{ from: 1, to: 65_535 }]

/** `443` or `8000-8100`; undefined when it is neither or runs backwards. */
export function parsePortRange(text: string): PortRange | undefined {
  const [first = '', last = first, ...rest] = text.trim().split('-')
  const from = parsePort(first)
  const to = parsePort(last)
  return rest.length > 0 || from === undefined || to === undefined || from > to ? undefined : { from, to }
}

export function formatPortRange(range: NumberRange): string {
  return range.from === range.to ? `${range.from}` : `${range.from}-${range.to}`
}

export function isAllPorts(ranges: readonly PortRange[]): boolean {
  return ranges.some((range) => range.from <= 1 && range.to === 65_535)
}

export function portsContain(ranges: readonly PortRange[], port: number): boolean {
  return ranges.some((range) => port >= range.from && port <= range.to)
}
