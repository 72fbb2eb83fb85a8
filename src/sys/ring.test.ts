import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { constants } from 'node:os'
import { test } from 'node:test'
import { EAGAIN } from './errno.ts'
import { FixedMemory } from './fixed-memory.ts'
import { Ring } from './ring.ts'
import {
  acceptConnection,
  bindSocket,
  closeFd,
  listenSocket,
  localEndpoint,
  openTcp,
  sendFlags,
  startConnect,
  transmit,
} from './socket.ts'

const LOOPBACK = { address: '127.0.0.1', port: 0 }

/** Both ends of a connection over loopback. */
function connection(): [number, number] {
  const listener = openTcp(4)
  bindSocket(listener, LOOPBACK)
  listenSocket(listener, 1)
  const one = openTcp(4)
  assert.equal(startConnect(one, localEndpoint(listener)), 0)
  const other = acceptConnection(listener)
  assert.ok(typeof other !== 'number')
  closeFd(listener)
  return [one, other.fd]
}

function openRing(capacity: number): Ring {
  const ring = Ring.open(capacity)
  assert.ok(ring, 'this kernel lets us have no ring: see kernel.io_uring_disabled')
  return ring
}

const openDescriptors = (): number => readdirSync('/proc/self/fd').length

test('each of many calls in one has its own result, and one that would wait does not wait', () => {
  const before = openDescriptors()
  const ring = openRing(8)
  const memory = new FixedMemory(64)
  const [full, receivesFull] = connection()
  const [empty, receivesEmpty] = connection()
  const [ended, receivesEnded] = connection()
  transmit(full, Buffer.from('hello'), 5)
  closeFd(ended)
  for (const fd of [receivesFull, receivesEmpty, receivesEnded, 9_999]) ring.receive(fd, memory.address, 32)
  ring.run()
  assert.deepEqual([...ring.results.subarray(0, 4)], [5, -EAGAIN, 0, -constants.errno.EBADF])
  assert.equal(Buffer.from(memory.bytes.subarray(0, 5)).toString(), 'hello')
  ring.send(receivesFull, memory.address, 5, sendFlags(false))
  ring.run()
  ring.receive(full, memory.address + 32, 32)
  for (const fd of [receivesFull, empty, receivesEmpty, receivesEnded]) ring.closeFd(fd)
  ring.run()
  assert.deepEqual([...ring.results.subarray(0, 5)], [5, 0, 0, 0, 0])
  assert.equal(Buffer.from(memory.bytes.subarray(32, 37)).toString(), 'hello')
  closeFd(full)
  ring.close()
  assert.equal(openDescriptors(), before)
})

test('its places are used again and again', () => {
  const ring = openRing(4)
  const memory = new FixedMemory(64)
  const [one, other] = connection()
  for (let round = 0; round < 1_000; round++) {
    memory.bytes[0] = round & 0xff
    ring.send(one, memory.address, 1, sendFlags(false))
    ring.receive(other, memory.address + 8, 8)
    ring.receive(other, memory.address + 16, 8)
    ring.run()
    assert.deepEqual([...ring.results.subarray(0, 3)], [1, 1, -EAGAIN])
    assert.equal(memory.bytes[8], round & 0xff)
  }
  closeFd(one)
  closeFd(other)
  ring.close()
})
