// The client of a bulk transfer on Y, as a process of its own: ADDRESS PORT CONNECTIONS SECONDS.
// Compares every byte with what was sent; prints {"all":…,"bytes":…,"seconds":…} at the end, fails at the first wrong byte.
import { EAGAIN, errnoName } from '../sys/errno.ts'
import { EPOLLIN, eventLoop, type Watch } from '../sys/loop.ts'
import { openTcp, receive, startConnect } from '../sys/socket.ts'
import { bulkPattern, PatternCheck } from './pattern.ts'

const READ_BYTES = 262_144
const CONNECT_TIMEOUT_MS = 10_000 // many connections on a busy machine take a while until all have data

const [address = '', port, connections, seconds] = process.argv.slice(2)
const pattern = bulkPattern()
const received = Buffer.alloc(READ_BYTES)
let before = 0
let bytes = 0
let flowing = 0
let startedAt = 0

function fail(why: string): never {
  process.stderr.write(`bulk transfer: ${why}\n`)
  process.exit(1)
}

function onFirstBytes(): void {
  if (++flowing < Number(connections)) return
  clearTimeout(late)
  // counted from here on: all connections are up
  before = bytes
  startedAt = performance.now()
  setTimeout(() => {
    const elapsed = (performance.now() - startedAt) / 1000
    const result = { all: bytes, bytes: bytes - before, seconds: elapsed }
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
  }, Number(seconds) * 1000)
}

function receiveBulk(): void {
  const fd = openTcp(4)
  const check = new PatternCheck(pattern)
  let isFirst = true
  const onEvents = (): void => {
    const count = receive(watch.fd, received, READ_BYTES) // once, then the next connection has its turn
    if (count === -EAGAIN) return
    if (count < 0) fail(errnoName(-count))
    if (count === 0) fail('the server ended it')
    if (!check.matches(received, count)) fail('the bytes received are not the bytes sent')
    bytes += count
    if (isFirst) {
      isFirst = false
      onFirstBytes()
    }
  }
  const watch: Watch = eventLoop.take(fd, EPOLLIN, { onEvents })
  const errno = startConnect(fd, { address, port: Number(port) })
  if (errno !== 0) fail(errnoName(errno))
}

const late = setTimeout(() => fail('no data'), CONNECT_TIMEOUT_MS)
for (let i = 0; i < Number(connections); i++) receiveBulk()
