import { type Endpoint, familyOf, isNeverForeign, parseAddress, parseEndpoint } from '../net/address.ts'
import { nearest } from './nearest.ts'
import type { DnsDecision } from './types.ts'
import type { ValueKind } from './values.ts'

const DNS_PORT = 53
const MAX_TEXT_BYTES = 1024

const THEN_WORDS: readonly DnsDecision[] = ['forward', 'answer', 'nxdomain', 'refuse', 'drop']

export const THEN: ValueKind<DnsDecision> = {
  expected: 'forward, answer, nxdomain, refuse or drop',
  parse: (text) => THEN_WORDS.find((word) => word === text),
  suggest: (text) => nearest(text, THEN_WORDS),
}

/** `10.0.4.2`, `10.0.4.2:5353`, `fd00::2`, `[fd00::2]:53`. */
export const DNS_SERVER: ValueKind<Endpoint> = {
  expected: 'the address of a DNS server, with a port such as 10.0.4.2:5353 or without for port 53',
  parse: (text) => {
    const address = parseAddress(/^\[(.*)\]$/.exec(text)?.[1] ?? text)
    const endpoint = address === undefined ? parseEndpoint(text) : { address, port: DNS_PORT }
    return endpoint === undefined || endpoint.port === 0 || isNowhere(endpoint.address) ? undefined : endpoint
  },
}

/** 127.0.0.1 is where a resolver of this host may wait. */
function isNowhere(address: string): boolean {
  return isNeverForeign(address) && address !== '::1' && !address.startsWith('127.')
}

/** A domain name in lower case, without the dot at its end; the root is `.`. */
export const DOMAIN: ValueKind<string> = {
  expected: 'a domain name such as www.example.org',
  parse: (text) => {
    const bare = text === '.' ? text : text.replace(/\.$/, '').toLowerCase()
    const isName = text === '.' || bare.split('.').every((label) => /^[\w-]{1,63}$/.test(label))
    return isName && bare.length <= 253 ? bare : undefined // 255 bytes on the wire, RFC 1035 §2.3.4
  },
  hint: (text) => {
    if (text.startsWith('*.')) return 'a suffix stands for the names below it without "*."'
    return /[^\0-\x7f]/.test(text) ? 'names of other letters are written as they are asked for: xn--…' : undefined
  },
}

/** RFC 1035 §3.2.2 and the IANA registry of DNS parameters: what is seen in queries. */
const TYPES: Readonly<Record<string, number>> = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  HINFO: 13,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  NAPTR: 35,
  DS: 43,
  SSHFP: 44,
  RRSIG: 46,
  NSEC: 47,
  DNSKEY: 48,
  TLSA: 52,
  SVCB: 64,
  HTTPS: 65,
  SPF: 99,
  IXFR: 251,
  AXFR: 252,
  ANY: 255,
  URI: 256,
  CAA: 257,
}

const TYPE_TEXTS: ReadonlyMap<number, string> = new Map(Object.entries(TYPES).map(([text, type]) => [type, text]))

/** As RECORD_TYPE reads it: `AAAA`, `TYPE999`. */
export function recordTypeText(type: number): string {
  return TYPE_TEXTS.get(type) ?? `TYPE${type}`
}

/** `AAAA`, or by number `TYPE65` (RFC 3597 §5). */
export const RECORD_TYPE: ValueKind<number> = {
  expected: 'a record type such as A, AAAA or HTTPS, or by number such as TYPE65',
  parse: (text) => {
    const word = text.toUpperCase()
    const number = Number(/^TYPE(\d{1,5})$/.exec(word)?.[1] ?? TYPES[word] ?? Number.NaN)
    return number >= 1 && number <= 65_535 ? number : undefined
  },
  suggest: (text) => nearest(text.toUpperCase(), Object.keys(TYPES)),
}

export const IPV4: ValueKind<string> = ofFamily(4, 'an IPv4 address')
export const IPV6: ValueKind<string> = ofFamily(6, 'an IPv6 address')

function ofFamily(family: 4 | 6, expected: string): ValueKind<string> {
  return {
    expected,
    parse: (text) => {
      const address = parseAddress(text)
      return address !== undefined && familyOf(address) === family ? address : undefined
    },
  }
}

export const TEXT: ValueKind<string> = {
  expected: `a text of at most ${MAX_TEXT_BYTES} bytes`,
  parse: (text) => (Buffer.byteLength(text) <= MAX_TEXT_BYTES ? text : undefined),
}
