import type { RemoteInfo, Socket } from 'node:dgram'
import { once } from 'node:events'
import { type Endpoint, parseAddress } from '../net/address.ts'
import { inTime } from './exchange.ts'
import type { Host } from './host.ts'

/** A datagram that came, and from whom. */
export interface Answer {
  readonly bytes: Buffer
  readonly from: Endpoint
}

/** A UDP socket that asks one server, one question at a time. It is not connected, so it hears whoever answers. */
export class DatagramClient {
  /** Its own end. */
  readonly address: Endpoint
  readonly #socket: Socket
  readonly #to: Endpoint

  constructor(host: Host, to: Endpoint, from: string) {
    this.#socket = host.datagramSocket({ address: from, port: 0 })
    this.#socket.on('error', () => {}) // whoever waits for an answer is told that none came
    this.address = { address: from, port: this.#socket.address().port }
    this.#to = to
  }

  /** Sends it, and waits for the next datagram. @throws LimpidError LIMPID_LAB when none comes in time; `what`: what is missing then. */
  async ask(question: Uint8Array | string, what: string): Promise<Answer> {
    const answered = once(this.#socket, 'message')
    this.#socket.send(question, this.#to.port, this.#to.address)
    const [bytes, info] = (await inTime(answered, what)) as [Buffer, RemoteInfo]
    return { bytes, from: senderOf(info) }
  }

  close(): void {
    this.#socket.close()
  }
}

/** Who sent a datagram. */
export function senderOf({ address, port }: RemoteInfo): Endpoint {
  return { address: parseAddress(address) ?? address, port }
}
