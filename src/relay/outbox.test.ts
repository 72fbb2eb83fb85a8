import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Endpoint } from '../net/address.ts'
import { DatagramArena } from '../sys/datagram-arena.ts'
import { EventLoop } from '../sys/loop.ts'
import { tryReceiveOffload } from '../sys/options.ts'
import { sockaddrWords } from '../sys/sockaddr.ts'
import { bindSocket, closeFd, localEndpoint, openUdp, startConnect } from '../sys/socket.ts'
import { Outbox, type Outlet } from './outbox.ts'

const LOOPBACK = { address: '127.0.0.1', port: 0 }

class TestOutlet implements Outlet {
  readonly family = 4
  fd: number
  segments = true
  head = -1
  tail = -1
  readonly earlier: number[] = []
  readonly lost: { slot: number; errno: number; datagrams: number }[] = []

  constructor(fd: number) {
    this.fd = fd
  }

  onEarlierError(errno: number): void {
    this.earlier.push(errno)
  }

  onLost(slot: number, errno: number, datagrams: number): void {
    this.lost.push({ slot, errno, datagrams })
  }
}

/** A sender with its arena, and a receiver on loopback that it is connected to. */
function raise(options: { readonly trains?: boolean } = {}) {
  const arena = new DatagramArena()
  const outbox = new Outbox(arena, new EventLoop())
  const receiver = bound()
  const outlet = new TestOutlet(openUdp(4))
  startConnect(outlet.fd, receiver.address)
  if (options.trains) tryReceiveOffload(receiver.fd)
  return { arena, outbox, receiver, outlet, [Symbol.dispose]: () => [receiver.fd, outlet.fd].forEach(closeFd) }
}

function bound(): { readonly fd: number; readonly address: Endpoint } {
  const fd = openUdp(4)
  bindSocket(fd, LOOPBACK)
  return { fd, address: localEndpoint(fd) }
}

/** Puts bytes into the next slot of the arena, as if they had been received. */
function lay(arena: DatagramArena, bytes: Uint8Array): number {
  const slot = arena.used++
  arena.replace(slot, bytes)
  arena.tos[slot] = 0
  return slot
}

/** What waits at a socket: sizes and first bytes, trains as one. */
function heard(fd: number): { readonly first: number; readonly bytes: number; readonly segment: number }[] {
  const arena = new DatagramArena()
  const all = []
  for (;;) {
    arena.used = 0
    const count = arena.receive(fd, 64)
    if (count <= 0) return all
    for (let slot = 0; slot < count; slot++) {
      all.push({ first: arena.bytesOf(slot)[0] ?? -1, bytes: arena.length[slot]!, segment: arena.segment[slot]! })
    }
  }
}

const numbered = (i: number, bytes: number): Uint8Array => new Uint8Array(bytes).fill(i)

test('datagrams arrive in the order in which they were put, each by itself', () => {
  using parts = raise()
  const { arena, outbox, outlet, receiver } = parts
  const sizes = [100, 100, 100, 40, 100, 0, 0, 900, 1, 900, 900]
  for (const [i, bytes] of sizes.entries()) outbox.put(outlet, lay(arena, numbered(i, bytes)))
  outbox.flush()
  assert.deepEqual(
    heard(receiver.fd).map(({ first, bytes }) => [first, bytes]),
    sizes.map((bytes, i) => [bytes === 0 ? -1 : i, bytes]),
  )
  assert.deepEqual([arena.used, outlet.lost, outlet.earlier], [0, [], []])
})

test('those of one size go as a train, which a shorter one ends', () => {
  using parts = raise({ trains: true })
  const { arena, outbox, outlet, receiver } = parts
  for (const bytes of [500, 500, 500, 200, 500, 500]) outbox.put(outlet, lay(arena, numbered(1, bytes)))
  outbox.flush()
  assert.deepEqual(
    heard(receiver.fd).map(({ bytes, segment }) => [bytes, segment]),
    [
      [1_700, 500],
      [1_000, 500],
    ],
  )
})

test('a train that came together leaves as single datagrams where no train can go', () => {
  using parts = raise()
  const { arena, outbox, outlet, receiver } = parts
  outlet.segments = false
  const train = Buffer.concat([numbered(1, 300), numbered(2, 300), numbered(3, 120)])
  const slot = lay(arena, train)
  arena.segment[slot] = 300
  outbox.put(outlet, slot)
  outbox.put(outlet, lay(arena, numbered(4, 7)))
  outbox.flush()
  assert.deepEqual(
    heard(receiver.fd).map(({ first, bytes }) => [first, bytes]),
    [
      [1, 300],
      [2, 300],
      [3, 120],
      [4, 7],
    ],
  )
})

test('128 slots full of datagrams for several sockets and peers all arrive', () => {
  using parts = raise()
  const { arena, outbox, outlet } = parts
  const unconnected = new TestOutlet(openUdp(4))
  const peers = Array.from({ length: 8 }, bound)
  const names = peers.map(({ address }) => ({ words: sockaddrWords(address), at: 0 }))
  for (let i = 0; i < 128; i++) {
    if (i % 3 === 0) outbox.put(outlet, lay(arena, numbered(i, 64)))
    else outbox.put(unconnected, lay(arena, numbered(i, 64)), names[i % 8])
  }
  outbox.flush()
  for (const [p, peer] of peers.entries()) {
    const wanted = Array.from({ length: 128 }, (_, i) => i).filter((i) => i % 3 !== 0 && i % 8 === p)
    assert.deepEqual(
      heard(peer.fd).map(({ first }) => first),
      wanted,
    )
    closeFd(peer.fd)
  }
  closeFd(unconnected.fd)
})

test('a peer that is gone is told once, and what follows is sent all the same', () => {
  using parts = raise()
  const { arena, outbox } = parts
  const gone = bound()
  const outlet = new TestOutlet(openUdp(4))
  startConnect(outlet.fd, gone.address)
  closeFd(gone.fd)
  outbox.put(outlet, lay(arena, numbered(1, 10)))
  outbox.flush() // ICMP comes back at once on loopback
  outbox.put(outlet, lay(arena, numbered(2, 10)))
  outbox.flush()
  assert.deepEqual([outlet.earlier.length, outlet.lost], [1, []])
  closeFd(outlet.fd)
})

test('what the kernel does not take is told with its size, and the others arrive', () => {
  using parts = raise()
  const { arena, outbox, outlet, receiver } = parts
  outbox.put(outlet, lay(arena, numbered(1, 10)))
  outbox.put(outlet, lay(arena, numbered(2, 65_520)))
  outbox.put(outlet, lay(arena, numbered(3, 10)))
  outbox.flush()
  assert.deepEqual(
    outlet.lost.map(({ slot, datagrams }) => [slot, datagrams]),
    [[1, 1]],
  )
  assert.deepEqual(
    heard(receiver.fd).map(({ first }) => first),
    [1, 3],
  )
})

test('an outlet that was closed meanwhile sends nothing, and the others do', () => {
  using parts = raise()
  const { arena, outbox, outlet, receiver } = parts
  const closed = new TestOutlet(openUdp(4))
  outbox.put(closed, lay(arena, numbered(1, 10)))
  outbox.put(outlet, lay(arena, numbered(2, 10)))
  closeFd(closed.fd)
  closed.fd = -1
  outbox.flush()
  assert.deepEqual(
    heard(receiver.fd).map(({ first }) => first),
    [2],
  )
})

test('a socket that is closed by what flushing tells is not read', () => {
  using parts = raise()
  const { arena, outbox, outlet, receiver } = parts
  const socket = { fd: receiver.fd }
  outlet.onLost = () => {
    socket.fd = -1
  }
  outbox.put(outlet, lay(arena, numbered(1, 65_520)))
  while (arena.used < 128) lay(arena, numbered(2, 1))
  assert.equal(outbox.receive(socket, 64), 0)
})
