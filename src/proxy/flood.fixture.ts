// A process on a host of the lab: DESTINATION PORT PER_SECOND SECONDS. Sends datagrams, each from another address of 198.18.0.0/15
// and another port, by a raw socket, so many at a time; prints how many the kernel took.
import { FixedMemory } from '../sys/fixed-memory.ts'
import { setTransparent } from '../sys/options.ts'
import { SendQueue } from '../sys/send-queue.ts'
import { sockaddrWords } from '../sys/sockaddr.ts'
import { bindSocket, openRaw } from '../sys/socket.ts'

const IPPROTO_UDP = 17
const TICK_MS = 2
const BATCH = 64
const HEADER_BYTES = 8
const PAYLOAD_BYTES = 16
const BYTES = HEADER_BYTES + PAYLOAD_BYTES

const [address = '', port = '', perSecond = '', seconds = ''] = process.argv.slice(2)
const fd = openRaw(4, IPPROTO_UDP)
setTransparent(fd, 4)
bindSocket(fd, { address: '192.0.2.1', port: 0 }) // hears nothing
const memory = new FixedMemory(BATCH * BYTES)
const view = new DataView(memory.bytes.buffer)
const queue = new SendQueue()
const to = sockaddrWords({ address, port: 0 })
const from = sockaddrWords({ address: '198.18.0.0', port: 0 })
const source = new DataView(from.buffer)
let sent = 0
let made = 0

function sendBatch(count: number): void {
  queue.clear()
  for (let i = 0; i < count; i++) {
    const at = i * BYTES
    made++
    view.setUint16(at, 1_024 + (Math.imul(made, 40_503) & 0x7fff))
    view.setUint16(at + 2, Number(port))
    view.setUint16(at + 4, BYTES)
    view.setUint16(at + 6, 0) // no checksum: RFC 768
    source.setUint32(4, 0xc612_0000 + (Math.imul(made, 0x9e37_79b1) >>> 15))
    queue.begin()
    queue.to(4, to, 0)
    queue.from(4, from, 0)
    queue.piece(memory.address + at, BYTES)
    queue.end()
  }
  const count_ = queue.send(fd, 0)
  if (count_ > 0) sent += count_
}

// one who was late does not make up for it at once: that would be another flood
const AT_ONCE = (Number(perSecond) * TICK_MS * 5) / 1000
const startedAt = performance.now()
const timer = setInterval(() => {
  const elapsed = (performance.now() - startedAt) / 1000
  const due = Math.min(elapsed, Number(seconds)) * Number(perSecond) - made
  for (let left = Math.min(due, AT_ONCE); left > 0; left -= BATCH) sendBatch(Math.min(BATCH, Math.ceil(left)))
  if (elapsed < Number(seconds)) return
  clearInterval(timer)
  process.stdout.write(`${JSON.stringify({ sent, seconds: elapsed })}\n`)
}, TICK_MS)
