import { addressBytes } from '../net/address.ts'
import { put16, put32, RECORD_FIXED_BYTES, TYPE } from './dns.ts'

const TO_QUESTION = Uint8Array.of(0xc0, 12) // a pointer to the name behind the header
const MAX_STRING_BYTES = 255 // RFC 1035 §3.3

/** One record of class IN. `owner`: a name on the wire; left out: the question's. */
export function recordBytes(type: number, ttl: number, rdata: Uint8Array, owner: Uint8Array = TO_QUESTION): Uint8Array {
  const record = new Uint8Array(owner.length + RECORD_FIXED_BYTES + rdata.length)
  record.set(owner)
  put16(record, owner.length, type)
  put16(record, owner.length + 2, 1)
  put32(record, owner.length + 4, ttl)
  put16(record, owner.length + 8, rdata.length)
  record.set(rdata, owner.length + RECORD_FIXED_BYTES)
  return record
}

export function addressRecord(address: string, ttl: number, owner?: Uint8Array): Uint8Array {
  const bytes = addressBytes(address)
  return recordBytes(bytes.length === 4 ? TYPE.A : TYPE.AAAA, ttl, bytes, owner)
}

/** A text of more than 255 bytes becomes several strings, which readers put together again (RFC 7208 §3.3). */
export function textRecord(text: string, ttl: number, owner?: Uint8Array): Uint8Array {
  const bytes = Buffer.from(text, 'utf8')
  const strings: Uint8Array[] = []
  for (let at = 0; at === 0 || at < bytes.length; at += MAX_STRING_BYTES) {
    const part = bytes.subarray(at, at + MAX_STRING_BYTES)
    strings.push(Uint8Array.of(part.length), part)
  }
  return recordBytes(TYPE.TXT, ttl, Buffer.concat(strings), owner)
}
