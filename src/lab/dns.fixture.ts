import type { Endpoint } from '../net/address.ts'
import { DatagramPeer } from './datagram.fixture.ts'
import type { Host } from './host.ts'
import { serve } from './traffic.fixture.ts'

const HEADER_BYTES = 12
const PLAIN_BYTES = 512 // RFC 1035 §4.2.1
const TYPE_TXT = 16
const TYPE_OPT = 41
const STRING_BYTES = 200

/** A name server that answers every question with so many bytes of TXT records, and over UDP with a stump where they do not fit. */
export async function nameServer(host: Host, endpoint: Endpoint, bytes: number): Promise<AsyncDisposable> {
  const udp = await DatagramPeer.open(host, endpoint)
  udp.socket.on('message', (query, { address, port }) => {
    const whole = answer(query, bytes)
    udp.socket.send(whole.length <= roomOf(query) ? whole : truncated(query), port, address)
  })
  const tcp = await serve(host, endpoint, (socket) => {
    let waiting = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      waiting = Buffer.concat([waiting, chunk])
      if (waiting.length < 2 || waiting.length < 2 + waiting.readUInt16BE(0)) return
      const whole = answer(waiting.subarray(2), bytes)
      const length = Buffer.alloc(2)
      length.writeUInt16BE(whole.length)
      socket.end(Buffer.concat([length, whole]))
    })
  })
  return {
    [Symbol.asyncDispose]: async () => {
      await udp[Symbol.asyncDispose]()
      await tcp[Symbol.asyncDispose]()
    },
  }
}

/** Where the question of a query ends: behind its name come type and class. */
function questionEnd(query: Buffer): number {
  let at = HEADER_BYTES
  while (query[at] !== 0) at += query[at]! + 1
  return at + 5
}

/** The size that an EDNS record right behind the question names (RFC 6891 §6.1.2: its name is the root, its class the size). */
function roomOf(query: Buffer): number {
  const at = questionEnd(query)
  if (query.length < at + 5 || query.readUInt16BE(at + 1) !== TYPE_OPT) return PLAIN_BYTES
  return Math.max(PLAIN_BYTES, query.readUInt16BE(at + 3))
}

function header(query: Buffer, flags: number, answers: number): Buffer {
  const head = Buffer.from(query.subarray(0, questionEnd(query)))
  head.writeUInt16BE(flags, 2)
  head.writeUInt16BE(answers, 6)
  head.writeUInt16BE(0, 8)
  head.writeUInt16BE(0, 10)
  return head
}

function truncated(query: Buffer): Buffer {
  return header(query, 0x8600, 0) // an answer, by authority, cut off
}

function answer(query: Buffer, bytes: number): Buffer {
  const record = Buffer.alloc(12 + 1 + STRING_BYTES, 'x')
  record.writeUInt16BE(0xc000 | HEADER_BYTES, 0) // the name of the question
  record.writeUInt16BE(TYPE_TXT, 2)
  record.writeUInt16BE(1, 4)
  record.writeUInt32BE(60, 6)
  record.writeUInt16BE(1 + STRING_BYTES, 10)
  record[12] = STRING_BYTES
  const count = Math.ceil(bytes / record.length)
  const records = Array.from({ length: count }, (_, i) => {
    const one = Buffer.from(record)
    one.write(`${i} `, 13) // equal records would be one
    return one
  })
  return Buffer.concat([header(query, 0x8400, count), ...records])
}
