// A client on Y that opens a connection each so often, sends a message, has it back, and closes: ADDRESS PORT RATE SECONDS. Prints
// Arrivals as JSON; fails at the first wrong byte. A connection that was due while this process had no turn is opened late, not left out.
import { FineTimer } from '../sys/fine-timer.ts'
import { eventLoop } from '../sys/loop.ts'
import type { Arrivals } from './hook-cases.ts'
import { MessageConnection, type MessageOwner } from './message-connection.ts'

const MESSAGE_BYTES = 64
const MAX_OPEN = 2_048 // else it is the load that fails
const GRACE_MS = 5_000

const [address = '', port, rate, seconds] = process.argv.slice(2)
const server = { address, port: Number(port) }
const startedAt = performance.now()
const all = Math.round(Number(rate) * Number(seconds))
let opened = 0
let done = 0

const owner: MessageOwner = {
  onReady: (connection) => connection.send(),
  onReply: (connection) => {
    connection.close()
    if (++done === all) report()
  },
}
const timer = new FineTimer(eventLoop, open)

function open(): void {
  const now = performance.now()
  while (opened < all && startedAt + (opened * 1000) / Number(rate) <= now) {
    if (opened - done >= MAX_OPEN) fail(`${MAX_OPEN} connections wait for their answer`)
    new MessageConnection(eventLoop, owner, server, opened++, MESSAGE_BYTES)
  }
  if (opened < all) timer.set(startedAt + (opened * 1000) / Number(rate) - now)
}

function report(): void {
  const arrivals: Arrivals = { connections: done, seconds: (performance.now() - startedAt) / 1000 }
  process.stdout.write(`${JSON.stringify(arrivals)}\n`, () => process.exit(0))
}

function fail(why: string): never {
  process.stderr.write(`${why}\n`)
  process.exit(1)
}

process.on('uncaughtException', (error) => fail(error.message))
setTimeout(() => fail(`${all - done} connections do not end`), Number(seconds) * 1000 + GRACE_MS)
open()
