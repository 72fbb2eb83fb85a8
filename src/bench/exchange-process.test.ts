import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { ExchangeLoad, ExchangeResult } from './exchange.ts'

const PROCESS = fileURLToPath(new URL('./exchange-process.js', import.meta.url))
const LOCALHOST = '127.0.0.1'

/** Runs a load against a server that does `serve` with each connection. */
async function run(
  load: Omit<ExchangeLoad, 'address' | 'port'>,
  serve: (socket: Socket) => void,
): Promise<ExchangeResult> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {}) // the load ends in the middle
    serve(socket)
  }).listen(0, LOCALHOST)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const told: ExchangeLoad = { ...load, address: LOCALHOST, port }
  const child = spawn(process.execPath, [PROCESS, JSON.stringify(told)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const said = await text(child.stdout)
  server.close()
  return JSON.parse(said) as ExchangeResult
}

test('at a rate exactly what was due in the time is counted', async () => {
  const load = { connections: 4, size: 64, rate: 1_000, seconds: 0.3 }
  const { counted, all } = await run(load, (socket) => socket.pipe(socket))
  assert.equal(counted, 300)
  assert.ok(all > counted, 'what came before is not counted')
})

test('a server that stalls delays all that was due meanwhile', async () => {
  let firstAt = 0
  const stallsFor = (now: number): number => {
    firstAt ||= now
    const since = now - firstAt
    return since > 100 && since < 1_100 ? 1_100 - since : 0
  }
  const load = { connections: 4, size: 64, rate: 1_000, seconds: 0.4 }
  const { counted, latency } = await run(load, (socket) => {
    socket.on('data', (bytes) => {
      const ms = stallsFor(performance.now())
      if (ms === 0) socket.write(bytes)
      else setTimeout(() => socket.write(bytes), ms)
    })
  })
  assert.equal(counted, 400)
  // only four of them were on their way meanwhile; the others waited to be sent
  assert.ok(latency.p50Ms > 400, `half of them took at most ${latency.p50Ms} ms`)
})

test('without a rate every connection has one message on its way', async () => {
  let most = 0
  let waiting = 0
  const { counted } = await run({ connections: 3, size: 64, seconds: 0.2 }, (socket) => {
    socket.on('data', (bytes) => {
      most = Math.max(most, ++waiting)
      setTimeout(() => {
        waiting--
        socket.write(bytes)
      }, 5)
    })
  })
  assert.equal(most, 3)
  assert.ok(counted > 3)
})
