import type { IncomingMessage } from 'node:http'
import { type Http1Head, probeHttp1 } from '../../inspect/http1-head.ts'

/** Header fields in the order and case in which they are sent: name and value. */
export type Fields = readonly (readonly [name: string, value: string])[]

/** What concerns the next server alone, RFC 9110 §7.6.1, beside what Connection names. */
const HOP_BY_HOP: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'upgrade'])

export function fieldsOf(rawHeaders: readonly string[]): Fields {
  return Array.from({ length: rawHeaders.length / 2 }, (_, i) => [rawHeaders[2 * i]!, rawHeaders[2 * i + 1]!] as const)
}

/** Those that go on; Transfer-Encoding is among them, since the body keeps its form. */
export function endToEnd(fields: Fields): Fields {
  const named = new Set<string>()
  for (const [name, value] of fields) {
    if (name.toLowerCase() !== 'connection') continue
    for (const option of value.split(',')) named.add(option.trim().toLowerCase())
  }
  for (const framing of ['content-length', 'transfer-encoding', 'host']) named.delete(framing) // nobody may name these, RFC 9110 §7.6.1
  return fields.filter(([name]) => !HOP_BY_HOP.has(name.toLowerCase()) && !named.has(name.toLowerCase()))
}

/** The value of the first of that name, which is in lower case. */
export function firstOf(fields: Fields, name: string): string | undefined {
  return fields.find(([one]) => one.toLowerCase() === name)?.[1]
}

/** `set` in the place of those of the same name, at the end where there was none; without those of `remove`. */
export function changed(
  fields: Fields,
  set: Readonly<Record<string, string | readonly string[]>>,
  remove: readonly string[],
): Fields {
  const gone = new Set(remove.map((name) => name.toLowerCase()))
  const left = new Map(Object.entries(set).map(([name, value]) => [name.toLowerCase(), { name, value }]))
  const written = new Set<string>()
  const result: (readonly [string, string])[] = []
  const write = (key: string): void => {
    const { name, value } = left.get(key)!
    if (!written.has(key)) result.push(...[value].flat().map((one) => [name, one] as const))
    written.add(key)
  }
  for (const field of fields) {
    const key = field[0].toLowerCase()
    if (left.has(key)) write(key)
    else if (!gone.has(key)) result.push(field)
  }
  for (const key of left.keys()) write(key)
  return result
}

/**
 * The head as it would be read from the first bytes of a flow, by the same rules (docs/inspection/http.md); a string: why no server should
 * get it.
 */
export function headOf(
  { method, url, httpVersion }: Pick<IncomingMessage, 'method' | 'url' | 'httpVersion'>,
  fields: Fields,
): Http1Head | string {
  const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`)
  const text = `${method} ${url} HTTP/${httpVersion}\r\n${lines.join('')}\r\n`
  const probed = probeHttp1(Buffer.from(text, 'latin1'))
  if (probed.kind === 'match') return probed.finding
  return probed.kind === 'malformed' ? probed.why : 'no HTTP/1 request'
}
