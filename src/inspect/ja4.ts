import { hash } from 'node:crypto'

/** What a ClientHello says of the client's software, in the order on the wire and without GREASE. */
export interface Ja4Parts {
  readonly transport: 'tcp' | 'quic'
  /** The highest that is offered; undefined when none is. */
  readonly version: number | undefined
  readonly ciphers: readonly number[]
  readonly extensions: readonly number[]
  /** A character for each byte. */
  readonly firstAlpn: string | undefined
  readonly signatureAlgorithms: readonly number[]
}

const SERVER_NAME = 0
const ALPN = 16
const NOTHING = '000000000000'
const VERSIONS: ReadonlyMap<number | undefined, string> = new Map([
  [0x0304, '13'],
  [0x0303, '12'],
  [0x0302, '11'],
  [0x0301, '10'],
  [0x0300, 's3'],
  [0x0002, 's2'],
])

/**
 * The JA4 fingerprint of a TLS client, as FoxIO specifies it (github.com/FoxIO-LLC/ja4, technical_details/JA4.md; BSD-3-Clause):
 * `t13d1516h2_8daaf6152771_e5627efa2ab1`.
 */
export function ja4(parts: Ja4Parts): string {
  const { transport, version, ciphers, extensions, firstAlpn, signatureAlgorithms } = parts
  const named = extensions.includes(SERVER_NAME) ? 'd' : 'i'
  const counts = `${twoDigits(ciphers.length)}${twoDigits(extensions.length)}`
  const prefix = `${transport === 'tcp' ? 't' : 'q'}${VERSIONS.get(version) ?? '00'}${named}${counts}${alpnMark(firstAlpn)}`
  const kinds = sorted(extensions.filter((type) => type !== SERVER_NAME && type !== ALPN))
  const signatures = signatureAlgorithms.length === 0 ? '' : `_${hexList(signatureAlgorithms)}`
  return `${prefix}_${digest(hexList(sorted(ciphers)))}_${kinds.length === 0 ? NOTHING : digest(hexList(kinds) + signatures)}`
}

/** First and last character of the first protocol; of its bytes in hexadecimal when one of the two is no letter or digit. */
function alpnMark(protocol: string | undefined): string {
  if (protocol === undefined || protocol.length === 0) return '00'
  const ends = protocol[0]! + protocol.at(-1)!
  if (/^[0-9A-Za-z]{2}$/.test(ends)) return ends
  return hex(ends.charCodeAt(0), 2)[0]! + hex(ends.charCodeAt(1), 2)[1]!
}

function digest(text: string): string {
  return text === '' ? NOTHING : hash('sha256', text, 'hex').slice(0, 12)
}

function sorted(values: readonly number[]): Uint16Array {
  return Uint16Array.from(values).sort() // by value, and an eighth of what an array's sort takes
}

function hexList(values: readonly number[] | Uint16Array): string {
  let text = ''
  for (const value of values) text += text === '' ? hex(value, 4) : `,${hex(value, 4)}`
  return text
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0')
}

function twoDigits(count: number): string {
  return String(Math.min(count, 99)).padStart(2, '0')
}
