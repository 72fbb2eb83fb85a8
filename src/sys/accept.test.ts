import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { acceptConnections, watchConnections } from './accept.ts'
import { EAGAIN } from './errno.ts'
import { EPOLLIN, EventLoop } from './loop.ts'
import { type Accepted, bindSocket, closeFd, listenSocket, localEndpoint, openTcp, startConnect } from './socket.ts'

const openDescriptors = (): number => readdirSync('/proc/self/fd').length

function listening(): number {
  const fd = openTcp(4)
  bindSocket(fd, { address: '127.0.0.1', port: 0 })
  listenSocket(fd, 64)
  return fd
}

function connect(count: number, listenFd: number): number[] {
  const at = localEndpoint(listenFd)
  return Array.from({ length: count }, () => {
    const fd = openTcp(4)
    assert.equal(startConnect(fd, at), 0)
    return fd
  })
}

for (const withRing of [true, false]) {
  test(`a backlog is taken ${withRing ? 'together' : 'one by one'}, each with its client, and no more than is asked for`, async () => {
    const before = openDescriptors()
    const loop = new EventLoop()
    if (!withRing) loop.refuseRing()
    const listenFd = listening()
    const clients = connect(5, listenFd)
    const keepsOpen = loop.add(listenFd, 0, { onEvents: () => {} })
    const { ring } = loop
    assert.equal(ring !== undefined, withRing)
    const accepted: Accepted[] = []
    let errno = 0
    while (errno === 0) {
      const taken = acceptConnections(listenFd, accepted.length === 0 ? 3 : 8, ring)
      assert.ok(taken.accepted.length <= (accepted.length === 0 ? 3 : 8))
      accepted.push(...taken.accepted)
      errno = taken.errno
    }
    assert.equal(errno, EAGAIN)
    const ports = clients.map((fd) => localEndpoint(fd).port)
    assert.deepEqual(accepted.map(({ clientAddr }) => clientAddr.port).toSorted(), ports.toSorted())

    const connections = watchConnections(accepted, EPOLLIN, loop)
    assert.deepEqual(
      connections.map(({ watch, clientAddr }) => [watch.fd, clientAddr]),
      accepted.map(({ fd, clientAddr }) => [fd, clientAddr]),
    )
    const ended = await new Promise<number[]>((resolve) => {
      const fds: number[] = []
      for (const { watch } of connections) {
        watch.target = {
          onEvents: () => {
            loop.close(watch)
            if (fds.push(watch.fd) === connections.length) resolve(fds)
          },
        }
      }
      for (const fd of clients) closeFd(fd)
    })
    assert.equal(new Set(ended).size, 5)
    loop.close(keepsOpen)
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(openDescriptors(), before)
  })
}

test('a connection that cannot be watched is reset and left out, and the others go on', () => {
  const loop = new EventLoop()
  const listenFd = listening()
  const clients = connect(2, listenFd)
  const keepsOpen = loop.add(listenFd, 0, { onEvents: () => {} })
  const { accepted } = acceptConnections(listenFd, 2, loop.ring)
  assert.equal(accepted.length, 2)
  const first = loop.add(accepted[0]!.fd, EPOLLIN, { onEvents: () => {} }) // EEXIST for the second watch of it
  const connections = watchConnections(accepted, EPOLLIN, loop)
  assert.deepEqual(
    connections.map(({ watch }) => watch.fd),
    [accepted[1]!.fd],
  )
  assert.throws(() => localEndpoint(accepted[0]!.fd), { call: 'getsockname' })
  for (const { watch } of connections) loop.close(watch)
  for (const fd of clients) closeFd(fd)
  loop.remove(first)
  loop.close(keepsOpen)
})
