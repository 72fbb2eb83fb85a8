import ipaddr from 'ipaddr.js'

/** IP version: 4 or 6. */
export type Family = 4 | 6

/** One end of a TCP connection or UDP session. `address` is an IP literal in canonical form, never a name. */
export interface Endpoint {
  readonly address: string
  /** 0–65535; 0 means "any" where a port is chosen by the kernel. */
  readonly port: number
}

/** The family of an IP literal. An IPv4-mapped IPv6 literal (`::ffff:10.0.0.1`) is never produced by Limpid. */
export function familyOf(address: string): Family {
  return address.includes(':') ? 6 : 4
}

/**
 * Canonical text of an IP literal: dotted quad, or IPv6 by RFC 5952; IPv4-mapped IPv6 becomes IPv4.
 * Returns undefined when `text` is not an IP literal (a zone such as `%eth0` is not accepted).
 */
export function parseAddress(text: string): string | undefined {
  if (DOTTED_QUAD.test(text)) return text
  if (!text.includes(':') || text.includes('%') || !ipaddr.IPv6.isValid(text)) return undefined
  return addressOfBytes(ipaddr.IPv6.parse(text).toByteArray())
}

const DOTTED_QUAD = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/ // no leading zeros: inet_aton(3) reads them as octal

/** Of a dotted quad; makes no garbage. */
function firstPart(quad: string): number {
  let part = 0
  for (let i = 0; i < 3 && quad.charCodeAt(i) !== DOT; i++) part = part * 10 + quad.charCodeAt(i) - DIGIT_0
  return part
}

/** A decimal port, 1–65535 (or 0 when `min` is 0); undefined otherwise. */
export function parsePort(text: string, min = 1): number | undefined {
  if (!/^\d{1,5}$/.test(text)) return undefined
  const port = Number(text)
  return port >= min && port <= 65_535 ? port : undefined
}

/** `10.0.0.1:80`, `[fd00::1]:80`; undefined when it is neither. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text)
  if (match === null) return undefined
  const address = parseAddress(match[1] ?? match[2] ?? '')
  const port = parsePort(match[3] ?? '', 0)
  return address === undefined || port === undefined ? undefined : { address, port }
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function formatEndpoint(endpoint: Endpoint): string {
  const { address, port } = endpoint
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** `10.0.0.1:80`; the address alone where there is no port. */
export function endpointText(endpoint: Endpoint): string {
  return endpoint.port === 0 ? endpoint.address : formatEndpoint(endpoint)
}

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.address === b.address
}

/** The 4 or 16 bytes of an IP literal in network order. */
export function addressBytes(address: string): Uint8Array {
  return Uint8Array.from(ipaddr.parse(address).toByteArray())
}

/** Writes the 4 or 16 bytes of a canonical IP literal into `bytes` from `at` on, in network order, and makes no garbage. */
export function putAddress(address: string, bytes: Uint8Array, at: number): void {
  if (address.includes(':')) putIpv6(address, bytes, at)
  else putIpv4(address, bytes, at)
}

function putIpv4(text: string, bytes: Uint8Array, at: number): void {
  let part = 0
  let place = at
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === DOT) {
      bytes[place++] = part
      part = 0
    } else part = part * 10 + code - DIGIT_0
  }
  bytes[place] = part
}

/** Groups of hexadecimal digits, and at most one `::` that stands for as many zeros as are missing (RFC 5952). */
function putIpv6(text: string, bytes: Uint8Array, at: number): void {
  let place = at
  let gapAt = -1
  for (let i = 0; i < text.length; ) {
    if (text.charCodeAt(i) === COLON) {
      if (text.charCodeAt(i + 1) === COLON) gapAt = place
      i += gapAt === place ? 2 : 1
      continue
    }
    let group = 0
    for (; i < text.length && text.charCodeAt(i) !== COLON; i++) group = group * 16 + hexDigit(text.charCodeAt(i))
    bytes[place++] = group >> 8
    bytes[place++] = group & 0xff
  }
  if (gapAt < 0) return
  const behind = at + 16 - (place - gapAt)
  bytes.copyWithin(behind, gapAt, place)
  bytes.fill(0, gapAt, behind)
}

const DOT = 0x2e
const COLON = 0x3a
const DIGIT_0 = 0x30
const DIGIT_9 = 0x39
const LETTER_A = 0x61 // canonical text is in lower case

function hexDigit(code: number): number {
  return code <= DIGIT_9 ? code - DIGIT_0 : code - LETTER_A + 10
}

/** Canonical text of the 4 or 16 bytes of an address in network order; IPv4-mapped IPv6 becomes IPv4. */
export function addressOfBytes(bytes: ArrayLike<number>): string {
  if (bytes.length === 4) return dottedQuad(bytes, 0)
  const groups = Array.from({ length: 8 }, (_, group) => (bytes[group * 2]! << 8) | bytes[group * 2 + 1]!)
  if (groups[5] === 0xffff && groups.every((group, i) => i > 4 || group === 0)) return dottedQuad(bytes, 12)
  const gap = longestZeros(groups)
  const text = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':')
  return gap.length < 2 ? text(0, 8) : `${text(0, gap.at)}::${text(gap.at + gap.length, 8)}`
}

function dottedQuad(bytes: ArrayLike<number>, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`
}

/** The run of zeros that `::` stands for: the longest, of equal ones the first (RFC 5952 §4.2.3). */
function longestZeros(groups: readonly number[]): { at: number; length: number } {
  let longest = { at: 0, length: 0 }
  for (let at = 0; at < 8; at++) {
    let length = 0
    while (groups[at + length] === 0) length++
    if (length > longest.length) longest = { at, length }
    at += length
  }
  return longest
}

/** Whether a socket bound to it has every address of its family. */
export function isWildcard(address: string): boolean {
  return address === '0.0.0.0' || address === '::'
}

/** 127.0.0.0/8 or ::1. */
export function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.')
}

/** 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4, 240.0.0.0/4; ::, ::1, ff00::/8: never the address of somebody else. */
export function isNeverForeign(address: string): boolean {
  if (familyOf(address) === 4) {
    const first = firstPart(address)
    return first === 0 || first === 127 || first >= 224
  }
  return address === '::' || address === '::1' || /^ff/i.test(address)
}
