import type { Host } from '../../lab/host.ts'
import type { Endpoint } from '../../net/address.ts'
import { EAGAIN, ENOBUFS, errnoName } from '../../sys/errno.ts'
import { FixedMemory } from '../../sys/fixed-memory.ts'
import { setTransparent } from '../../sys/options.ts'
import { SendQueue } from '../../sys/send-queue.ts'
import { sockaddrWords } from '../../sys/sockaddr.ts'
import { bindSocket, closeFd, openUdp } from '../../sys/socket.ts'

const BATCH = 64
const SLOT_BYTES = 2_048
const SOCKETS = 32
const MAX_RETRIES = 1_000

/** Sends datagrams from any address of 10.9.0.0/16, and from as many ports as it has sockets: 64 in a system call. */
export class ForgedSender implements Disposable {
  readonly #queue = new SendQueue()
  readonly #memory = new FixedMemory(BATCH * SLOT_BYTES)
  readonly #sockets: readonly number[]
  readonly #to: Uint32Array
  readonly #from = sockaddrWords({ address: '10.9.0.0', port: 0 })
  readonly #fromBytes = new Uint8Array(this.#from.buffer)
  readonly #random: (below: number) => number

  constructor(host: Host, to: Endpoint, random: (below: number) => number) {
    this.#to = sockaddrWords(to)
    this.#random = random
    this.#sockets = Array.from({ length: SOCKETS }, () => {
      const fd = host.inside(() => openUdp(4))
      setTransparent(fd, 4)
      bindSocket(fd, { address: '0.0.0.0', port: 0 })
      return fd
    })
  }

  /** Sends `count` datagrams that `make` makes; when it returns the kernel has taken all of them. */
  async send(count: number, make: () => Uint8Array): Promise<void> {
    for (let left = count; left > 0; left -= BATCH) {
      this.#queue.clear()
      for (let i = 0; i < Math.min(BATCH, left); i++) this.#add(i, make())
      await this.#flush()
    }
  }

  #add(i: number, bytes: Uint8Array): void {
    this.#memory.bytes.set(bytes.subarray(0, SLOT_BYTES), i * SLOT_BYTES)
    this.#fromBytes[6] = this.#random(256)
    this.#fromBytes[7] = this.#random(256)
    this.#queue.begin()
    this.#queue.to(4, this.#to, 0)
    this.#queue.from(4, this.#from, 0)
    this.#queue.piece(this.#memory.address + i * SLOT_BYTES, Math.min(SLOT_BYTES, bytes.length))
    this.#queue.end()
  }

  async #flush(): Promise<void> {
    const fd = this.#sockets[this.#random(SOCKETS)]!
    let retries = 0
    for (let done = 0; done < this.#queue.messages; ) {
      const sent = this.#queue.send(fd, done)
      if (sent > 0) done += sent
      else if (!FULL.has(-sent) || ++retries > MAX_RETRIES) throw new Error(`sendmmsg: ${errnoName(-sent)}`)
      else await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#sockets) closeFd(fd)
  }
}

const FULL: ReadonlySet<number> = new Set([EAGAIN, ENOBUFS])
