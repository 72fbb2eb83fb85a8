import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import type { Endpoint } from '../net/address.ts'
import { EADDRINUSE } from './errno.ts'
import { EPOLLET, EPOLLHUP, EPOLLOUT, EventLoop, type EventTarget, type Watch } from './loop.ts'
import { openSocket, openSockets, type SocketPlan } from './open-sockets.ts'
import { NO_DELAY, NO_QUICK_ACK, REUSE_ADDRESS } from './options.ts'
import { bindSocket, closeFd, listenSocket, localEndpoint, openTcp, startConnect } from './socket.ts'

const LOOPBACK: Endpoint = { address: '127.0.0.1', port: 0 }
const openDescriptors = (): number => readdirSync('/proc/self/fd').length

function listening(): { fd: number; at: Endpoint } {
  const fd = openTcp(4)
  bindSocket(fd, LOOPBACK)
  listenSocket(fd, 64)
  return { fd, at: localEndpoint(fd) }
}

function plan(target: EventTarget, bind?: Endpoint): SocketPlan {
  const options = [NO_DELAY, NO_QUICK_ACK, REUSE_ADDRESS]
  return { family: 4, options, bind, events: EPOLLOUT | EPOLLET, target }
}

test('many sockets are made ready with few calls, and each tells that it is connected, not that it was not yet', async () => {
  const before = openDescriptors()
  const loop = new EventLoop()
  const server = listening()
  const keepsOpen = loop.add(server.fd, 0, { onEvents: () => {} })
  const count = 50 // more than one ring takes
  const events: number[] = []
  const opened: Watch[] = []
  await new Promise<void>((resolve) => {
    const target = { onEvents: (one: number) => events.push(one) === count && resolve() }
    const watches = openSockets(
      Array.from({ length: count }, () => plan(target, LOOPBACK)),
      loop,
    )
    assert.ok(
      watches.every((watch) => watch !== undefined),
      'this kernel makes them by a ring: Linux 6.11',
    )
    for (const { fd } of watches) assert.equal(startConnect(fd, server.at), 0)
    assert.equal(new Set(watches.map(({ fd }) => localEndpoint(fd).port)).size, count)
    opened.push(...watches)
  })
  assert.ok(events.every((one) => (one & EPOLLOUT) !== 0 && (one & EPOLLHUP) === 0))
  for (const watch of [...opened, keepsOpen]) loop.close(watch)
  closeFd(server.fd)
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(openDescriptors(), before)
})

test('one that cannot be had is left out and leaves nothing; made by itself it says why', () => {
  const loop = new EventLoop()
  const server = listening()
  const keepsOpen = loop.add(server.fd, 0, { onEvents: () => {} })
  assert.ok(loop.ring)
  const before = openDescriptors()
  const nobody = { onEvents: () => {} }
  const [good, taken] = openSockets([plan(nobody, LOOPBACK), plan(nobody, server.at)], loop)
  assert.ok(good)
  assert.equal(taken, undefined)
  assert.throws(() => openSocket(plan(nobody, server.at), loop), { call: 'bind', errno: EADDRINUSE })
  loop.close(good)
  assert.equal(openDescriptors(), before)
  loop.close(keepsOpen)
})

test('without a ring each is left to be made by itself', () => {
  const loop = new EventLoop()
  loop.refuseRing()
  const nobody = { onEvents: () => {} }
  assert.deepEqual(openSockets([plan(nobody), plan(nobody)], loop), [undefined, undefined])
  const watch = openSocket(plan(nobody, LOOPBACK), loop)
  assert.equal(localEndpoint(watch.fd).address, LOOPBACK.address)
  loop.close(watch)
  closeFd(listening().fd)
})
