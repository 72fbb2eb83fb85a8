import { nameEnd, plainNameEnd } from './dns-name.ts'

export const HEADER_BYTES = 12 // RFC 1035 §4.1.1
export const RECORD_FIXED_BYTES = 10 // type, class, TTL and length, behind the name: RFC 1035 §4.1.3
/** What a client without EDNS can receive by UDP, RFC 1035 §4.2.1. */
export const PLAIN_UDP_BYTES = 512

/** Bits of the header's second 16 bits. */
export const FLAG = { qr: 0x8000, aa: 0x0400, tc: 0x0200, rd: 0x0100, ra: 0x0080, ad: 0x0020, cd: 0x0010 } as const
export const RCODE = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 } as const
export const TYPE = { A: 1, CNAME: 5, SOA: 6, TXT: 16, AAAA: 28, OPT: 41, IXFR: 251, AXFR: 252, ANY: 255 } as const
const OPTION_CLIENT_SUBNET = 8 // RFC 7871 §6

/** Why a message is malformed, or not what it should be. */
export type DnsFault = (typeof DNS_FAULTS)[number]
export const DNS_FAULTS = ['short', 'response', 'query', 'questions', 'name', 'record', 'opt'] as const

/** Header and question of a message. Positions are from the message's first byte. */
export interface DnsHead {
  id: number
  flags: number
  answers: number
  authorities: number
  additionals: number
  /** Behind the question's name, which begins at HEADER_BYTES. */
  nameEnd: number
  qtype: number
  qclass: number
  questionEnd: number
}

export interface DnsQuery extends DnsHead {
  /** It has an OPT record (RFC 6891). */
  edns: boolean
  /** What the client can receive by UDP: at least 512. */
  udpBytes: number
  /** DNSSEC OK, RFC 3225. */
  dnssecOk: boolean
  /** It says more than header, question and a plain OPT: a signature, a client's subnet, another version of EDNS. */
  extra: boolean
}

export function emptyHead(): DnsHead {
  return {
    id: 0,
    flags: 0,
    answers: 0,
    authorities: 0,
    additionals: 0,
    nameEnd: 0,
    qtype: 0,
    qclass: 0,
    questionEnd: 0,
  }
}

export function emptyQuery(): DnsQuery {
  return { ...emptyHead(), edns: false, udpBytes: PLAIN_UDP_BYTES, dnssecOk: false, extra: false }
}

export function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}

export function u32(bytes: Uint8Array, at: number): number {
  return (u16(bytes, at) << 16) | u16(bytes, at + 2) // negative when the highest bit is set
}

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8
  bytes[at + 1] = value
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  put16(bytes, at, value >>> 16)
  put16(bytes, at + 2, value)
}

/** A query (QR clear) with another opcode than QUERY: NOTIFY, UPDATE and so on (RFC 6895 §2.2). */
export function isOtherOpcode(bytes: Uint8Array): boolean {
  return bytes.length >= HEADER_BYTES && (bytes[2]! & 0x80) === 0 && (bytes[2]! & 0x78) !== 0
}

/**
 * What a message and its answer have in common: the id, and above it an opcode other than QUERY. A message with such an opcode
 * keeps its id, which must not be taken for one that was drawn for a query.
 */
export function idAndOpcode(bytes: Uint8Array): number {
  return u16(bytes, 0) | ((bytes[2]! & 0x78) << 13)
}

/** Header and the one question. */
export function readHead(bytes: Uint8Array, into: DnsHead): DnsFault | undefined {
  if (bytes.length < HEADER_BYTES) return 'short'
  into.id = u16(bytes, 0)
  into.flags = u16(bytes, 2)
  if (u16(bytes, 4) !== 1) return 'questions'
  into.answers = u16(bytes, 6)
  into.authorities = u16(bytes, 8)
  into.additionals = u16(bytes, 10)
  const end = plainNameEnd(bytes, HEADER_BYTES, bytes.length)
  if (end < 0) return 'name'
  if (end + 4 > bytes.length) return 'short'
  into.nameEnd = end
  into.qtype = u16(bytes, end)
  into.qclass = u16(bytes, end + 2)
  into.questionEnd = end + 4
  return undefined
}

/** A query with opcode QUERY. Reads all of it, changes nothing; the time is bounded by its length. */
export function readQuery(bytes: Uint8Array, into: DnsQuery): DnsFault | undefined {
  if (bytes.length < HEADER_BYTES) return 'short'
  if ((bytes[2]! & 0x80) !== 0) return 'response'
  const fault = readHead(bytes, into)
  if (fault !== undefined) return fault
  into.edns = false
  into.udpBytes = PLAIN_UDP_BYTES
  into.dnssecOk = false
  into.extra = false
  const before = into.answers + into.authorities
  const records = before + into.additionals
  let at = into.questionEnd
  for (let i = 0; i < records; i++) {
    const fixed = nameEnd(bytes, at, bytes.length)
    if (fixed < 0) return 'record'
    const end = recordEnd(bytes, fixed)
    if (end < 0) return 'record'
    if (u16(bytes, fixed) !== TYPE.OPT) into.extra = true
    else if (into.edns || i < before || fixed !== at + 1) return 'opt'
    else if (!readOpt(bytes, fixed, end, into)) return 'opt'
    at = end
  }
  if (at !== bytes.length) into.extra = true
  return undefined
}

/** Where the record ends whose type is at `fixed`; -1 when that is behind the message. */
export function recordEnd(bytes: Uint8Array, fixed: number): number {
  if (fixed + RECORD_FIXED_BYTES > bytes.length) return -1
  const end = fixed + RECORD_FIXED_BYTES + u16(bytes, fixed + 8)
  return end > bytes.length ? -1 : end
}

/** RFC 6891 §6.1: the class is the size that the sender can receive, the TTL has the version and DO. */
function readOpt(bytes: Uint8Array, fixed: number, end: number, into: DnsQuery): boolean {
  into.edns = true
  into.udpBytes = Math.max(PLAIN_UDP_BYTES, u16(bytes, fixed + 2))
  if (bytes[fixed + 5] !== 0) into.extra = true // the version
  into.dnssecOk = (bytes[fixed + 6]! & 0x80) !== 0
  let at = fixed + RECORD_FIXED_BYTES
  while (at < end) {
    if (at + 4 > end) return false
    if (u16(bytes, at) === OPTION_CLIENT_SUBNET) into.extra = true
    at += 4 + u16(bytes, at + 2)
  }
  return at === end
}
