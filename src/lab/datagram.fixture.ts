import type { RemoteInfo, Socket } from 'node:dgram'
import { once } from 'node:events'
import { type Endpoint, parseAddress } from '../net/address.ts'
import type { Host } from './host.ts'
import { PATIENCE_MS } from './traffic.fixture.ts'

/** One datagram that came. */
export interface Heard {
  readonly bytes: Buffer
  readonly from: Endpoint
}

/** A UDP socket of Node's own on a host of the lab, with all that it hears. */
export class DatagramPeer implements AsyncDisposable {
  readonly socket: Socket
  readonly heard: Heard[] = []
  /** Errors that the socket was told, such as ECONNREFUSED. */
  readonly errors: string[] = []
  #taken = 0
  #wake: (() => void) | undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('message', (bytes, { address, port }: RemoteInfo) => {
      this.heard.push({ bytes, from: { address: parseAddress(address.split('%')[0]!) ?? address, port } })
      this.#wake?.()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.errors.push(error.code ?? error.message)
      this.#wake?.()
    })
  }

  /** Bound to `endpoint`; connected to `peer` when that is given. */
  static async open(host: Host, endpoint: Endpoint, peer?: Endpoint): Promise<DatagramPeer> {
    const socket = host.datagramSocket(endpoint)
    const opened = new DatagramPeer(socket)
    if (peer !== undefined) {
      socket.connect(peer.port, peer.address)
      await once(socket, 'connect')
    }
    return opened
  }

  /** A server that sends back what it gets, to whom it came from. */
  static async echo(host: Host, endpoint: Endpoint): Promise<DatagramPeer> {
    const server = await DatagramPeer.open(host, endpoint)
    server.socket.on('message', (bytes, { address, port }) => server.socket.send(bytes, port, address))
    return server
  }

  get address(): Endpoint {
    const { address, port } = this.socket.address()
    return { address: parseAddress(address) ?? address, port }
  }

  /** To the connected peer when `to` is left out. */
  send(bytes: Uint8Array | string, to?: Endpoint): void {
    if (to === undefined) this.socket.send(bytes)
    else this.socket.send(bytes, to.port, to.address)
  }

  /** The next datagram, in order; undefined when none comes in time. */
  async next(withinMs = PATIENCE_MS): Promise<Heard | undefined> {
    const deadlineAt = performance.now() + withinMs
    while (this.heard.length <= this.#taken) {
      const left = deadlineAt - performance.now()
      if (left <= 0) return undefined
      await this.#change(left)
    }
    return this.heard[this.#taken++]
  }

  /** Waits until so many datagrams were heard in all; false when they do not come in time. */
  async hears(count: number, withinMs = PATIENCE_MS): Promise<boolean> {
    const deadlineAt = performance.now() + withinMs
    while (this.heard.length < count) {
      const left = deadlineAt - performance.now()
      if (left <= 0) return false
      await this.#change(left)
    }
    return true
  }

  /** What was heard so far is not given by next() any more. */
  skip(): void {
    this.#taken = this.heard.length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.socket.close(resolve))
  }

  #change(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, withinMs)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
