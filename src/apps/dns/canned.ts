import type { DnsAnswers } from '../../config/types.ts'
import { TYPE } from '../../inspect/dns.ts'
import { nameBytes } from '../../inspect/dns-name.ts'
import { addressRecord, recordBytes, textRecord } from '../../inspect/dns-records.ts'
import { type DnsRecords, NO_RECORDS } from '../../inspect/dns-write.ts'

/** The records of a configured answer, ready for the wire. */
export interface CannedAnswer {
  /** What the question's type gets; none: the name has no such record. */
  recordsFor(type: number): DnsRecords
  /** The addresses among them. */
  addressesFor(type: number): readonly string[]
  readonly ttlMs: number
}

/** With a CNAME, the other records are those of the name that it leads to, and every type gets the CNAME first (RFC 1034 §3.6.2). */
export function cannedAnswer({ a, aaaa, cname, txt, ttlSeconds: ttl }: DnsAnswers): CannedAnswer {
  const target = cname === undefined ? undefined : nameBytes(cname)
  const byType = new Map([
    [TYPE.A, a.map((address) => addressRecord(address, ttl, target))],
    [TYPE.AAAA, aaaa.map((address) => addressRecord(address, ttl, target))],
    [TYPE.TXT, txt.map((text) => textRecord(text, ttl, target))],
  ] as const satisfies readonly (readonly [number, Uint8Array[]])[])
  const alias = target === undefined ? [] : [recordBytes(TYPE.CNAME, ttl, target)]
  const otherwise = join(alias)
  const ready = new Map<number, DnsRecords>()
  for (const [type, records] of byType) ready.set(type, join([...alias, ...records]))
  ready.set(TYPE.ANY, join([...alias, ...(target === undefined ? [...byType.values()].flat() : [])]))
  const addresses = new Map<number, readonly string[]>([
    [TYPE.A, a],
    [TYPE.AAAA, aaaa],
  ])
  return {
    recordsFor: (type) => ready.get(type) ?? otherwise,
    addressesFor: (type) => addresses.get(type) ?? [],
    ttlMs: ttl * 1000,
  }
}

function join(records: readonly Uint8Array[]): DnsRecords {
  return records.length === 0 ? NO_RECORDS : { bytes: Buffer.concat(records), count: records.length }
}
