import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { eventLoop } from '../sys/loop.ts'
import { serveBulk } from './bulk-responder.ts'
import { serveEcho } from './echo-responder.ts'
import { MessageConnection } from './message-connection.ts'
import { bulkPattern, PatternCheck } from './pattern.ts'

const LOCALHOST = '127.0.0.1'
const IDLE_FLOWS = fileURLToPath(new URL('./idle-flows-process.js', import.meta.url))

/** A port that nobody has. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, LOCALHOST)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Exchanges so many messages on a connection of its own. */
function exchange(port: number, size: number, messages: number): Promise<void> {
  return new Promise((resolve) => {
    let left = messages
    const owner = {
      onReady: (connection: MessageConnection) => connection.send(),
      onReply: (connection: MessageConnection) => {
        if (--left > 0) connection.send()
        else {
          connection.close()
          resolve()
        }
      },
    }
    new MessageConnection(eventLoop, owner, { address: LOCALHOST, port }, 3, size)
  })
}

test('every connection gets the pattern, also while others take it as fast as they can', async () => {
  const port = await freePort()
  const stop = serveBulk(eventLoop, port)
  await Promise.all(
    [1, 2, 3, 4].map(async () => {
      const check = new PatternCheck(bulkPattern())
      let count = 0
      for await (const bytes of connect(port, LOCALHOST) as AsyncIterable<Buffer>) {
        assert.ok(check.matches(bytes, bytes.length))
        count += bytes.length
        if (count > 4_000_000) break
      }
    }),
  )
  stop()
})

test('an echo sends back messages of any size, to many', async () => {
  const port = await freePort()
  const stop = serveEcho(eventLoop, port)
  await Promise.all([8, 64, 16_384, 1_000_000].map((size) => exchange(port, size, 3)))
  stop()
})

test('a reply with another byte ends the load', async () => {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      bytes[bytes.length - 1]! ^= 1
      socket.write(bytes)
    })
  }).listen(0, LOCALHOST)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const load = spawn(process.execPath, [IDLE_FLOWS, LOCALHOST, String(port), '1'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [said, [code]] = await Promise.all([text(load.stderr), once(load, 'exit')])
  server.close()
  assert.equal(said, 'the bytes received are not the bytes sent\n')
  assert.equal(code, 1)
})
