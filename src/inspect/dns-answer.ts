import { addressOfBytes } from '../net/address.ts'
import {
  type DnsFault,
  type DnsHead,
  emptyHead,
  FLAG,
  HEADER_BYTES,
  RCODE,
  RECORD_FIXED_BYTES,
  readHead,
  recordEnd,
  TYPE,
  u16,
  u32,
} from './dns.ts'
import { expandName, MAX_NAME_BYTES, nameEnd } from './dns-name.ts'

/** Records whose TTL is remembered; an answer with more is no candidate for a cache. */
export const MAX_AGED_RECORDS = 512
const MAX_CHAIN_RECORDS = 128 // answers among which addresses are sought
const MAX_ADDRESSES = 32 // of one name; nobody dials more
const MAX_CHAIN = 16 // CNAMEs from the question to an address; resolvers stop at 8 to 16
const SOA_NUMBERS_BYTES = 20 // behind its two names, RFC 1035 §3.3.13
const NO_TTL = 0x7fff_ffff

/** What an answer says, for a cache and for whoever wants to know which addresses a name has. */
export interface DnsAnswer extends DnsHead {
  /** With the OPT record's upper 8 bits (RFC 6891 §6.1.3). */
  rcode: number
  truncated: boolean
  /** Positions of the records' TTLs, OPT apart; the first `ttls` of them count. */
  readonly ttlAt: Uint16Array
  ttls: number
  /** Seconds; the smallest of all records. */
  minTtl: number
  /** Seconds that the absence of an answer may be kept: smaller of the SOA's TTL and minimum (RFC 2308 §5); -1: no SOA. */
  negativeTtl: number
  /** The answer section has a record of the type that was asked for. */
  hasType: boolean
  /** Position of the OPT record; 0: none. */
  optAt: number
  /** Behind the last record. */
  end: number
  /** Nothing stands behind the OPT record, and every TTL is in `ttlAt`: the answer may be kept without its OPT. */
  plain: boolean
}

export function emptyAnswer(): DnsAnswer {
  return {
    ...emptyHead(),
    rcode: 0,
    truncated: false,
    ttlAt: new Uint16Array(MAX_AGED_RECORDS),
    ttls: 0,
    minTtl: 0,
    negativeTtl: -1,
    hasType: false,
    optAt: 0,
    end: 0,
    plain: true,
  }
}

/** An answer to a query with one question. Reads all of it, changes nothing; the time is bounded by its length. */
export function readAnswer(bytes: Uint8Array, into: DnsAnswer): DnsFault | undefined {
  const fault = readHead(bytes, into)
  if (fault !== undefined) return fault
  if ((into.flags & FLAG.qr) === 0) return 'query'
  into.rcode = into.flags & 0xf
  into.truncated = (into.flags & FLAG.tc) !== 0
  into.ttls = 0
  into.minTtl = NO_TTL
  into.negativeTtl = -1
  into.hasType = false
  into.optAt = 0
  into.plain = true
  let at = into.questionEnd
  const authoritiesFrom = into.answers
  const additionalsFrom = authoritiesFrom + into.authorities
  const records = additionalsFrom + into.additionals
  for (let i = 0; i < records; i++) {
    const fixed = nameEnd(bytes, at, bytes.length)
    if (fixed < 0) return 'record'
    const end = recordEnd(bytes, fixed)
    if (end < 0) return 'record'
    const type = u16(bytes, fixed)
    if (type === TYPE.OPT) {
      if (into.optAt !== 0 || i < additionalsFrom || fixed !== at + 1) return 'opt'
      into.optAt = at
      into.rcode |= bytes[fixed + 4]! << 4
    } else {
      if (into.optAt !== 0) into.plain = false
      noteTtl(bytes, fixed, into)
      if (i < authoritiesFrom) into.hasType ||= type === into.qtype
      else if (i < additionalsFrom && type === TYPE.SOA && !noteSoa(bytes, fixed, end, into)) return 'record'
    }
    at = end
  }
  into.end = at
  return undefined
}

function noteTtl(bytes: Uint8Array, fixed: number, into: DnsAnswer): void {
  const ttl = Math.max(0, u32(bytes, fixed + 4)) // the highest bit set means 0, RFC 2181 §8
  if (ttl < into.minTtl) into.minTtl = ttl
  if (into.ttls < MAX_AGED_RECORDS) into.ttlAt[into.ttls++] = fixed + 4
  else into.plain = false
}

function noteSoa(bytes: Uint8Array, fixed: number, end: number, into: DnsAnswer): boolean {
  const responsible = nameEnd(bytes, fixed + RECORD_FIXED_BYTES, end)
  const numbers = responsible < 0 ? -1 : nameEnd(bytes, responsible, end)
  if (numbers < 0 || numbers + SOA_NUMBERS_BYTES !== end) return false
  into.negativeTtl = Math.max(0, Math.min(u32(bytes, fixed + 4), u32(bytes, end - 4)))
  return true
}

/** Seconds for which the answer may be kept by others than its client; 0: not at all. */
export function keepSeconds(answer: DnsAnswer): number {
  const { rcode, qtype, truncated, plain } = answer
  if (truncated || !plain || (rcode !== RCODE.noError && rcode !== RCODE.nxDomain)) return 0
  if (qtype >= 249 && qtype <= TYPE.ANY) return 0 // TKEY, TSIG, transfers, ANY: RFC 6895 §3.1
  if (rcode === RCODE.noError && answer.hasType) return answer.minTtl
  return answer.negativeTtl < 0 ? 0 : Math.min(answer.negativeTtl, answer.minTtl)
}

/** A server that could not read the question sends a header alone. */
export function isBareError(bytes: Uint8Array): boolean {
  if (bytes.length !== HEADER_BYTES || (bytes[2]! & 0x80) === 0) return false
  const rcode = bytes[3]! & 0xf
  for (let i = 4; i < HEADER_BYTES; i++) if (bytes[i] !== 0) return false
  return rcode === RCODE.formErr || rcode === RCODE.notImp
}

const wanted = new Uint8Array(MAX_NAME_BYTES)
const owner = new Uint8Array(MAX_NAME_BYTES)

/**
 * The addresses (canonical text, at most MAX_ADDRESSES) in the answer section that the question's name has, itself or over CNAMEs.
 * `answer` is what readAnswer() said of `bytes`.
 */
export function answerAddresses(bytes: Uint8Array, answer: DnsAnswer): string[] {
  const found: string[] = []
  let length = expandName(bytes, HEADER_BYTES, bytes.length, wanted)
  for (let hops = 0; length > 0 && hops < MAX_CHAIN; hops++) {
    const alias = collect(bytes, answer, length, found)
    if (alias === 0 || found.length > 0) break // a name with an alias has nothing else (RFC 1034 §3.6.2)
    length = expandName(bytes, alias, bytes.length, wanted)
  }
  return found
}

/** Adds the addresses of the name in `wanted`. Returns where the name stands that it is an alias of; 0: it is none. */
function collect(bytes: Uint8Array, answer: DnsAnswer, length: number, found: string[]): number {
  let at = answer.questionEnd
  for (let i = Math.min(answer.answers, MAX_CHAIN_RECORDS); i > 0; i--) {
    const fixed = nameEnd(bytes, at, bytes.length)
    const end = recordEnd(bytes, fixed)
    const type = u16(bytes, fixed)
    const rdata = fixed + RECORD_FIXED_BYTES
    const isAddress = (type === TYPE.A && end === rdata + 4) || (type === TYPE.AAAA && end === rdata + 16)
    if ((isAddress || type === TYPE.CNAME) && u16(bytes, fixed + 2) === 1 && ownerIsWanted(bytes, at, length)) {
      if (!isAddress) return rdata
      found.push(addressOfBytes(bytes.subarray(rdata, end)))
      if (found.length === MAX_ADDRESSES) return 0
    }
    at = end
  }
  return 0
}

function ownerIsWanted(bytes: Uint8Array, at: number, length: number): boolean {
  if (expandName(bytes, at, bytes.length, owner) !== length) return false
  for (let i = 0; i < length; i++) if (owner[i] !== wanted[i]) return false
  return true
}
