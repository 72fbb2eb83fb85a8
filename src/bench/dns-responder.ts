import { DatagramArena, SLOTS } from '../sys/datagram-arena.ts'
import { EPOLLIN, type EventLoop } from '../sys/loop.ts'
import { setReceiveBuffer } from '../sys/options.ts'
import { SendQueue } from '../sys/send-queue.ts'
import { SOCKADDR_WORDS } from '../sys/sockaddr.ts'
import { bindSocket, openUdp } from '../sys/socket.ts'

const HEADER_BYTES = 12 // RFC 1035 §4.1.1
const MOST_BYTES = 512 // of a question; there is room for an answer behind it
const TYPE_A = 1
const RESPONSE = 0x84 // QR and AA; the question's RD stays
const ANSWER = Buffer.from('c00c00010001', 'hex') // the name at byte 12 (RFC 1035 §4.1.4), A, IN
const ADDRESS = Buffer.from('0004c0000201', 'hex') // four bytes: 192.0.2.1
const ANSWER_BYTES = ANSWER.length + 4 + ADDRESS.length

/** Names that begin with this letter are not to be cached: their answers have TTL 0. */
export const FRESH = 'f'
const CACHED_TTL_SECONDS = 3_600
const BATCH = 64
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024

/** Turns a question into its answer, in place: an address for A, nothing for others. Returns its length; 0 when it is no question. */
export function answer(bytes: Buffer, length: number): number {
  let at = HEADER_BYTES
  while (at < length && bytes[at] !== 0) at += 1 + bytes[at]!
  const end = at + 5
  if (end > length || length > MOST_BYTES || (bytes[2]! & 0x80) !== 0) return 0
  const isAddress = bytes.readUInt16BE(at + 1) === TYPE_A
  bytes[2] = RESPONSE | (bytes[2]! & 0x01)
  bytes[3] = 0
  bytes.writeUInt16BE(isAddress ? 1 : 0, 6)
  bytes.writeUInt16BE(0, 10) // without EDNS, whatever the question had
  if (!isAddress) return end
  const ttl = bytes[HEADER_BYTES + 1] === FRESH.charCodeAt(0) ? 0 : CACHED_TTL_SECONDS
  bytes.set(ANSWER, end)
  bytes.writeUInt32BE(ttl, end + ANSWER.length)
  bytes.set(ADDRESS, end + ANSWER.length + 4)
  return end + ANSWER_BYTES
}

/** Answers every question for an address with the same one: two system calls a batch, so that it is not what a benchmark measures. */
export function serveDns(loop: EventLoop, port: number): void {
  const arena = new DatagramArena()
  const queue = new SendQueue()
  const memory = arena.bytesOf(0).buffer
  const slots = Array.from({ length: SLOTS }, (_, slot) =>
    Buffer.from(memory, arena.addressOf(slot) - arena.addressOf(0), MOST_BYTES + ANSWER_BYTES),
  )
  const fd = openUdp(4)
  setReceiveBuffer(fd, RECEIVE_BUFFER_BYTES)
  bindSocket(fd, { address: '0.0.0.0', port })
  const onEvents = (): void => {
    arena.used = 0
    const count = arena.receive(fd, BATCH)
    queue.clear()
    for (let slot = 0; slot < count; slot++) {
      const length = answer(slots[slot]!, arena.length[slot]!)
      if (length === 0) continue
      queue.begin()
      queue.to(4, arena.senders, slot * SOCKADDR_WORDS)
      queue.piece(arena.addressOf(slot), length)
      queue.end()
    }
    for (let done = 0; done < queue.messages; ) {
      const sent = queue.send(fd, done)
      done += sent > 0 ? sent : 1 // what the kernel does not take is lost, and will be missed
    }
  }
  loop.add(fd, EPOLLIN, { onEvents })
}
