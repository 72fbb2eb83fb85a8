import { closeSync, openSync } from 'node:fs'
import type { Endpoint } from '../net/address.ts'
import { DatagramArena } from '../sys/datagram-arena.ts'
import { FixedMemory } from '../sys/fixed-memory.ts'
import { enterNetNamespace, openNetNamespace } from '../sys/namespace.ts'
import { setReceiveBuffer } from '../sys/options.ts'
import { SendQueue } from '../sys/send-queue.ts'
import { SOCKADDR_WORDS, sockaddrWords } from '../sys/sockaddr.ts'
import { bindSocket, openUdp, startConnect } from '../sys/socket.ts'
import { HEADER_BYTES, PATTERN, patternAt, WrongDatagram } from './udp-traffic.ts'

/** More than an ordinary user may have: then it is what net.core.rmem_max allows. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
/** Ports of the clients: the same in every run, so that their sessions go on. */
const FIRST_CLIENT_PORT = 20_000

export interface Ends {
  /** Descriptors of the clients' sockets, each connected. */
  readonly clients: readonly number[]
  readonly server: number
}

/**
 * Opens both ends of a load in one process: `clients` sockets of the host whose namespace is `clientNamespace`, connected to
 * `dialled`, and one at `server` on the host where the process runs. So both sides know what is on its way, without a packet
 * that tells them.
 */
export function openEnds(
  clientNamespace: string,
  client: string,
  clients: number,
  dialled: Endpoint,
  server: Endpoint,
): Ends {
  const serverFd = openUdp(4)
  setReceiveBuffer(serverFd, RECEIVE_BUFFER_BYTES)
  bindSocket(serverFd, server)
  const home = openNetNamespace()
  const there = openSync(clientNamespace, 'r')
  enterNetNamespace(there)
  const fds = Array.from({ length: clients }, (_, i) => {
    const fd = openUdp(4)
    bindSocket(fd, { address: client, port: FIRST_CLIENT_PORT + i })
    const errno = startConnect(fd, dialled)
    if (errno !== 0) throw new Error(`connect: errno ${errno}`)
    return fd
  })
  enterNetNamespace(home)
  closeSync(there)
  closeSync(home)
  return { clients: fds, server: serverFd }
}

const MOST_HEADERS = 128 // as many as a SendQueue has messages

const pattern = new FixedMemory(PATTERN.length)
pattern.bytes.set(PATTERN)
const patternBytes = Buffer.from(pattern.bytes.buffer)
const headers = new FixedMemory(MOST_HEADERS * HEADER_BYTES)

/** Sends `count` datagrams of a session from `sequence` on, by its connected socket; returns how many the kernel took. */
export function sendBurst(fd: number, session: number, sequence: number, count: number, size: number): number {
  queue.clear()
  for (let i = 0; i < count; i++) {
    const word = (i * HEADER_BYTES) >>> 2
    headers.words[word] = session
    headers.words[word + 1] = sequence + i
    queue.begin()
    queue.piece(headers.address + i * HEADER_BYTES, HEADER_BYTES)
    queue.piece(pattern.address + patternAt(session, sequence + i), size - HEADER_BYTES)
    queue.end()
  }
  return Math.max(0, queue.send(fd, 0))
}

const queue = new SendQueue()
const arena = new DatagramArena()
const memory = Buffer.from(arena.bytesOf(0).buffer)
const words = new Uint32Array(memory.buffer)

/** Receives what waits, at most `most`, from slot 0 on; returns how many, or the negative errno. */
export function receiveBatch(fd: number, most: number): number {
  arena.used = 0
  return arena.receive(fd, most)
}

export function sessionIn(slot: number): number {
  return words[(arena.addressOf(slot) - arena.addressOf(0)) >>> 2]!
}

export function sequenceIn(slot: number): number {
  return words[((arena.addressOf(slot) - arena.addressOf(0)) >>> 2) + 1]!
}

/** @throws WrongDatagram when a datagram is not `size` bytes of what its header says. */
export function verifyBytes(slot: number, size: number): void {
  const at = arena.addressOf(slot) - arena.addressOf(0)
  const from = patternAt(sessionIn(slot), sequenceIn(slot))
  const length = arena.length[slot]!
  const isRight =
    length === size &&
    memory.compare(patternBytes, from, from + size - HEADER_BYTES, at + HEADER_BYTES, at + size) === 0
  if (!isRight) throw new WrongDatagram(`a datagram of ${length} bytes that nobody sent`)
}

/** @throws WrongDatagram when a datagram does not come from that address. */
export function verifySender(slot: number, address: number): void {
  const seen = arena.senders[slot * SOCKADDR_WORDS + 1]
  if (seen !== address) throw new WrongDatagram('the server sees another address than the client’s')
}

/** The address of an endpoint as senders have it. */
export function addressWord(address: string): number {
  return sockaddrWords({ address, port: 0 })[1]!
}

/** Sends the received datagrams back to where they came from. */
export function echo(fd: number, count: number): void {
  queue.clear()
  for (let slot = 0; slot < count; slot++) {
    queue.begin()
    queue.to(4, arena.senders, slot * SOCKADDR_WORDS)
    queue.piece(arena.addressOf(slot), arena.length[slot]!)
    queue.end()
  }
  for (let done = 0; done < count; ) {
    const sent = queue.send(fd, done)
    done += sent > 0 ? sent : 1 // what the kernel does not take is lost, and will be missed
  }
}
