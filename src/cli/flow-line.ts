import type { Colour } from '../colour.ts'
import { formatDuration } from '../config/duration.ts'
import { formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'

const GOOD = new Set(['closed', 'session-idle', 'shutdown'])

/**
 * Returns a function that tells one flow in one line: id, client → original destination, upstream, source used, bytes
 * from the client and to it, time to dial (for a UDP session: datagrams) and in all, close reason; with `listener` its name
 * behind the id, and where a policy looked or decided what it saw and its rule at the end. Columns grow with what they have held, so that lines stay aligned.
 */
export function flowLineFormat(colour: Colour, options: { listener: boolean }): (record: FlowRecord) => string {
  const widths: number[] = []
  const column = (index: number, text: string, end = false): string => {
    const width = Math.max(widths[index] ?? 0, text.length)
    widths[index] = width
    return end ? text.padStart(width) : text.padEnd(width)
  }
  return (record) => {
    const { sourceAddr, upstream } = record
    const from = sourceAddr === undefined ? (record.source ?? '-') : `${record.source} ${formatEndpoint(sourceAddr)}`
    const reason = GOOD.has(record.reason) ? colour.green(record.reason) : colour.red(record.reason)
    return [
      column(0, `#${record.id}`),
      ...(options.listener ? [column(9, record.listener)] : []),
      `${column(1, formatEndpoint(record.client))} → ${column(2, formatEndpoint(record.originalDst))}`,
      `upstream ${column(3, upstream === undefined ? '-' : formatEndpoint(upstream))}`,
      `as ${column(4, from)}`,
      `${column(5, formatBytes(record.bytesClientToUpstream), true)} up ${column(6, formatBytes(record.bytesUpstreamToClient), true)} down`,
      colour.dim(`${column(7, effortText(record), true)}  ${column(8, formatDuration(record.durationMs), true)}`),
      reason,
      ...policyTexts(record).map(colour.dim),
    ].join('  ')
  }
}

/** What the policy saw, and by which rule it decided: `tls www.example.org`, `rule blocked`. Both are safe text. */
function policyTexts({ front, detected, host, hostChecked, rule }: FlowRecord): string[] {
  const seen = detected === undefined ? [] : [host === undefined ? detected : `${detected} ${host}`]
  const by = front === undefined ? [] : [`by ${formatEndpoint(front)}`]
  const isDoubtful = hostChecked === 'mismatch' || hostChecked === 'unresolved'
  return [
    ...by,
    ...seen,
    ...(isDoubtful ? [`host ${hostChecked}`] : []),
    ...(rule === undefined ? [] : [`rule ${rule}`]),
  ]
}

/** What it took: the dial, or datagrams from and to the client, and those that were lost on the way. */
function effortText({ dialMs, datagrams }: FlowRecord): string {
  if (datagrams === undefined) return `dial ${formatDuration(dialMs)}`
  const { clientToUpstream, upstreamToClient, dropped } = datagrams
  return `udp ${clientToUpstream}+${upstreamToClient}${dropped > 0 ? `, ${dropped} lost` : ''}`
}

/** `0 B`, `999 B`, `1.2 kB`, `1.0 GB`: powers of ten, as networks count. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  let value = bytes
  for (const unit of ['kB', 'MB', 'GB', 'TB']) {
    value /= 1000
    if (value < 999.95 || unit === 'TB') return `${value.toFixed(1)} ${unit}`
  }
  return `${bytes} B`
}
