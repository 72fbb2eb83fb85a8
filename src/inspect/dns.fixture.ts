import * as dnsPacket from 'dns-packet'
import { emptyQuery, readQuery } from './dns.ts'
import { answerAddresses, emptyAnswer, keepSeconds, readAnswer } from './dns-answer.ts'
import { mutatedSample, type RandomNumbers } from './fuzz.fixture.ts'

/** Messages by another implementation. */
export function encoded(packet: dnsPacket.Packet): Uint8Array {
  return new Uint8Array(dnsPacket.encode(packet)) // a copy: the encoder's buffers are shared
}

export interface QueryOptions {
  readonly id?: number
  readonly type?: string
  /** Of the header beside QR and opcode. */
  readonly flags?: number
  /** With EDNS: what the client can receive. */
  readonly udpBytes?: number
  readonly dnssecOk?: boolean
}

export function queryFor(name: string, options: QueryOptions = {}): Uint8Array {
  const { id = 0x1234, type = 'A', flags = dnsPacket.RECURSION_DESIRED, udpBytes, dnssecOk = false } = options
  return encoded({
    type: 'query',
    id,
    flags,
    questions: [{ name, type: type as 'A' }],
    additionals: udpBytes === undefined ? [] : [opt(udpBytes, dnssecOk)],
  })
}

export function opt(udpPayloadSize: number, dnssecOk = false): dnsPacket.OptAnswer {
  const flags = dnssecOk ? dnsPacket.DNSSEC_OK : 0
  return {
    type: 'OPT',
    name: '.',
    udpPayloadSize,
    flags,
    flag_do: dnssecOk,
    extendedRcode: 0,
    ednsVersion: 0,
    options: [],
  }
}

const SOA = { mname: 'ns.example', rname: 'root.example', serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 60 }

/** One of each kind that a resolver sees. */
export const SEEDS: readonly Uint8Array[] = [
  queryFor('www.example.org'),
  queryFor('www.example.org', { udpBytes: 1232, dnssecOk: true }),
  queryFor('a'.repeat(63), { type: 'AAAA', udpBytes: 4096 }),
  encoded({
    type: 'response',
    id: 7,
    flags: 0x180,
    questions: [{ name: 'www.example.org', type: 'A' }],
    answers: [
      { type: 'CNAME', name: 'www.example.org', ttl: 60, data: 'cdn.example.net' },
      { type: 'A', name: 'cdn.example.net', ttl: 30, data: '192.0.2.1' },
      { type: 'AAAA', name: 'cdn.example.net', ttl: 30, data: '2001:db8::1' },
    ],
    additionals: [opt(1232)],
  }),
  encoded({
    type: 'response',
    id: 8,
    flags: 0x183,
    questions: [{ name: 'nobody.example', type: 'A' }],
    authorities: [{ type: 'SOA', name: 'example', ttl: 300, data: SOA }],
  }),
  encoded({
    type: 'response',
    id: 9,
    flags: 0x180,
    questions: [{ name: 'example.org', type: 'TXT' }],
    answers: [{ type: 'TXT', name: 'example.org', ttl: 5, data: ['v=spf1', 'x'.repeat(200)] }],
  }),
  // www.example.org A with its name by a pointer, as servers write it
  Uint8Array.from([
    ...[0, 10, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0],
    ...[3, 119, 119, 119, 7, 101, 120, 97, 109, 112, 108, 101, 3, 111, 114, 103, 0, 0, 1, 0, 1],
    ...[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 9],
  ]),
]

const MAX_MESSAGE_BYTES = 2048 // of a mutated one: it has to fit a datagram

/** One of SEEDS with some changes. */
export function mutated(random: RandomNumbers): Uint8Array {
  return mutatedSample(SEEDS, random, MAX_MESSAGE_BYTES)
}

const query = emptyQuery()
const answer = emptyAnswer()

/** All readers on one input. Returns what they made of it; throws where one does. */
export function readAll(bytes: Uint8Array): string {
  const asQuery = readQuery(bytes, query) ?? 'query'
  const fault = readAnswer(bytes, answer)
  if (fault !== undefined) return `${asQuery} ${fault}`
  const seconds = keepSeconds(answer)
  if (!(seconds >= 0) || answer.end > bytes.length) throw new Error(`${seconds} s, ends at ${answer.end}`)
  return `${asQuery} answer ${answerAddresses(bytes, answer).length > 0}`
}
