// The client of a bulk transfer on Y, as a process of its own: ADDRESS PORT CONNECTIONS SECONDS.
// Compares every byte with what was sent; prints {"all":…,"bytes":…,"seconds":…} at the end, fails at the first wrong byte.
import { connect } from 'node:net'
import { bulkPattern, PatternCheck } from './pattern.ts'

const READ_BYTES = 262_144
const CONNECT_TIMEOUT_MS = 10_000 // many connections on a busy machine take a while until all have data

const [address = '', port, connections, seconds] = process.argv.slice(2)
const pattern = bulkPattern()
let before = 0
let bytes = 0
let flowing = 0
let startedAt = 0

function fail(why: string): never {
  process.stderr.write(`${why}\n`)
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
    process.stdout.write(`${JSON.stringify({ all: bytes, bytes: bytes - before, seconds: elapsed })}\n`, () =>
      process.exit(0),
    )
  }, Number(seconds) * 1000)
}

function receiveBulk(): void {
  const check = new PatternCheck(pattern)
  let isFirst = true
  const callback = (count: number, buffer: Uint8Array): boolean => {
    if (!check.matches(buffer as Buffer, count)) fail('the bytes received are not the bytes sent')
    bytes += count
    if (isFirst) {
      isFirst = false
      onFirstBytes()
    }
    return true
  }
  const onread = { buffer: Buffer.allocUnsafe(READ_BYTES), callback }
  const socket = connect({ host: address, port: Number(port), onread })
  socket.on('error', (error) => fail(`bulk transfer: ${error.message}`))
  socket.on('end', () => fail('the server ended a bulk transfer'))
}

const late = setTimeout(() => fail('bulk transfer: no data'), CONNECT_TIMEOUT_MS)
for (let i = 0; i < Number(connections); i++) receiveBulk()
