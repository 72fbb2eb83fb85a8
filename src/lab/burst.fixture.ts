import { type Endpoint, type Family, familyOf } from '../net/address.ts'
import { DatagramArena, SLOTS } from '../sys/datagram-arena.ts'
import { SyscallError } from '../sys/errno.ts'
import { ffi, lastErrno } from '../sys/ffi.ts'
import { FixedMemory } from '../sys/fixed-memory.ts'
import { pathMtu, setReceiveBuffer, setReceiveTos, socketDrops, takeSocketError } from '../sys/options.ts'
import { SendQueue } from '../sys/send-queue.ts'
import { decodeSockaddrWords, SOCKADDR_WORDS, sockaddrWords } from '../sys/sockaddr.ts'
import { bindSocket, closeFd, localEndpoint, openUdp, startConnect } from '../sys/socket.ts'
import type { Host } from './host.ts'

const LARGEST_BYTES = 2_048
const ROOMY_BYTES = 16 * 1024 * 1024

/** What a burst consists of. */
export interface Outgoing {
  readonly bytes: Uint8Array
  /** Where to; the connected peer when it is left out. */
  readonly to?: Endpoint
  /** DSCP and ECN. */
  readonly tos?: number
}

export interface Incoming {
  readonly bytes: Buffer
  readonly from: Endpoint
  readonly tos: number
}

export interface BurstOptions {
  /** Connected to it. */
  readonly peer?: Endpoint
  /** SO_RCVBUF; roomy when left out. */
  readonly receiveBuffer?: number
  /** Whether what it sends may be fragmented: as most programs (`as-default`, IP_PMTUDISC_WANT), never or always. */
  readonly fragments?: 'as-default' | 'never' | 'always'
}

/** A UDP socket of the lab that sends as fast as sendmmsg(2) can, and tells all about what it gets. */
export class BurstPeer implements Disposable {
  readonly address: Endpoint
  readonly #fd: number
  readonly #family: Family
  readonly #queue = new SendQueue()
  readonly #memory = new FixedMemory(SLOTS * LARGEST_BYTES)
  readonly #arena = new DatagramArena()

  constructor(host: Host, endpoint: Endpoint, options: BurstOptions = {}) {
    this.#family = familyOf(endpoint.address)
    this.#fd = host.inside(() => openUdp(this.#family))
    setReceiveBuffer(this.#fd, options.receiveBuffer ?? ROOMY_BYTES)
    setReceiveTos(this.#fd, this.#family)
    if (options.fragments !== undefined) this.#setFragments(options.fragments)
    bindSocket(this.#fd, endpoint)
    if (options.peer !== undefined) startConnect(this.#fd, options.peer)
    this.address = localEndpoint(this.#fd)
  }

  /** Sends all, as many in one system call as fit. @throws SyscallError with the errno of the first that the kernel does not take. */
  send(datagrams: Iterable<Outgoing>): void {
    this.#queue.clear()
    for (const { bytes, to, tos } of datagrams) {
      const at = this.#queue.messages * LARGEST_BYTES
      this.#memory.bytes.set(bytes, at)
      this.#queue.begin()
      if (to !== undefined) this.#queue.to(this.#family, sockaddrWords(to), 0)
      if (tos !== undefined) this.#queue.tos(this.#family, tos)
      this.#queue.piece(this.#memory.address + at, bytes.length)
      this.#queue.end()
      if (this.#queue.messages === SLOTS) this.#flush()
    }
    this.#flush()
  }

  #flush(): void {
    for (let first = 0; first < this.#queue.messages; ) {
      const sent = this.#queue.send(this.#fd, first)
      if (sent < 0) throw new SyscallError('sendmmsg', -sent, 'burst')
      first += sent
    }
    this.#queue.clear()
  }

  /** All that waits. */
  receive(): Incoming[] {
    const arena = this.#arena
    const all: Incoming[] = []
    for (;;) {
      arena.used = 0
      const count = arena.receive(this.#fd, SLOTS)
      if (count <= 0) return all
      for (let slot = 0; slot < count; slot++) {
        const from = decodeSockaddrWords(arena.senders, slot * SOCKADDR_WORDS)
        all.push({ bytes: Buffer.from(arena.bytesOf(slot)), from, tos: arena.tos[slot]! })
      }
    }
  }

  /** The error that waits (ICMP), as errno; 0 when none does. */
  takeError(): number {
    return takeSocketError(this.#fd)
  }

  /** Datagrams that its full buffer has cost. */
  get drops(): number {
    return socketDrops(this.#fd)
  }

  /** Of a connected socket, as its host knows it. */
  get pathMtu(): number {
    return pathMtu(this.#fd, this.#family)
  }

  [Symbol.dispose](): void {
    closeFd(this.#fd)
  }

  #setFragments(fragments: NonNullable<BurstOptions['fragments']>): void {
    const value = Int32Array.of({ always: 0, 'as-default': 1, never: 2 }[fragments]) // IP_PMTUDISC_DONT, _WANT, _DO
    const [level, option] = this.#family === 4 ? [0, 10] : [41, 23] // IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    if (ffi.setsockopt(this.#fd, level!, option!, value, 4) < 0) throw new SyscallError('setsockopt', lastErrno(), 'DF')
  }
}
