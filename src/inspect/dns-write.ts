import { type DnsQuery, FLAG, HEADER_BYTES, put16, TYPE, u16 } from './dns.ts'

/** The size that we say we can receive, and the largest answer of our own by UDP: one packet on any path (1280 - 40 - 8). */
export const OWN_UDP_BYTES = 1232
export const OPT_BYTES = 11
const OPCODE = 0x7800
const KEPT_FLAGS = OPCODE | FLAG.rd | FLAG.cd // RFC 1035 §4.1.1, RFC 4035 §3.2.2

/** Records on the wire that stand in an answer section. A name that is the question's is a pointer to it (0xc00c). */
export interface DnsRecords {
  readonly bytes: Uint8Array
  readonly count: number
}

export const NO_RECORDS: DnsRecords = { bytes: new Uint8Array(0), count: 0 }

/**
 * Writes the answer to `query`, whose bytes are `message`, to `out`: same id, question and EDNS. Without the records and with
 * TC set when it is longer than `limit`. Returns its length, at most 512 + OPT_BYTES or `limit`.
 */
export function writeAnswer(
  message: Uint8Array,
  query: DnsQuery,
  rcode: number,
  records: DnsRecords,
  out: Uint8Array,
  limit: number,
): number {
  const { questionEnd, edns } = query
  for (let i = 0; i < questionEnd; i++) out[i] = message[i]!
  const fits = questionEnd + records.bytes.length + (edns ? OPT_BYTES : 0) <= limit
  put16(out, 2, FLAG.qr | (query.flags & KEPT_FLAGS) | FLAG.ra | (fits ? 0 : FLAG.tc) | rcode)
  put16(out, 6, fits ? records.count : 0)
  put16(out, 8, 0)
  put16(out, 10, edns ? 1 : 0)
  if (fits) out.set(records.bytes, questionEnd)
  const end = questionEnd + (fits ? records.bytes.length : 0)
  return edns ? writeOpt(out, end, query.dnssecOk) : end
}

/** An OPT record without options at `at` (RFC 6891 §6.1.2). Returns its end. */
export function writeOpt(out: Uint8Array, at: number, dnssecOk: boolean): number {
  out[at] = 0
  put16(out, at + 1, TYPE.OPT)
  put16(out, at + 3, OWN_UDP_BYTES)
  put16(out, at + 5, 0)
  put16(out, at + 7, dnssecOk ? 0x8000 : 0)
  put16(out, at + 9, 0)
  return at + OPT_BYTES
}

/** A header alone, for a message whose question could not be read. Returns its length. */
export function writeBareAnswer(message: Uint8Array, rcode: number, out: Uint8Array): number {
  put16(out, 0, u16(message, 0))
  put16(out, 2, FLAG.qr | (u16(message, 2) & KEPT_FLAGS) | rcode)
  out.fill(0, 4, HEADER_BYTES)
  return HEADER_BYTES
}

/**
 * Cuts an answer down in place to header, question and, with `edns`, an OPT record; TC is set (RFC 2181 §9), what stood behind
 * is zeroed. Returns the new length.
 */
export function truncateInPlace(bytes: Uint8Array, questionEnd: number, edns: boolean, dnssecOk: boolean): number {
  const hasRoom = edns && questionEnd + OPT_BYTES <= bytes.length
  bytes[2] = bytes[2]! | (FLAG.tc >> 8)
  put16(bytes, 6, 0)
  put16(bytes, 8, 0)
  put16(bytes, 10, hasRoom ? 1 : 0)
  const end = hasRoom ? writeOpt(bytes, questionEnd, dnssecOk) : questionEnd
  bytes.fill(0, end)
  return end
}
