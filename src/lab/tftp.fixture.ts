import type { RemoteInfo } from 'node:dgram'
import type { Endpoint } from '../net/address.ts'
import { DatagramPeer } from './datagram.fixture.ts'
import type { Host } from './host.ts'

const BLOCK_BYTES = 512
const READ_REQUEST = 1
const DATA = 3
const ACKNOWLEDGEMENT = 4
const ERROR = 5

/** A TFTP server for one file, whatever name is asked for (RFC 1350), without options and without a second try of a lost block. */
export class TftpServer implements AsyncDisposable {
  readonly #host: Host
  readonly #endpoint: Endpoint
  readonly #file: Buffer
  readonly #requests: DatagramPeer
  readonly #transfers: DatagramPeer[] = []
  /** Who asked, in order. */
  readonly clients: Endpoint[] = []

  private constructor(host: Host, endpoint: Endpoint, file: Buffer, requests: DatagramPeer) {
    this.#host = host
    this.#endpoint = endpoint
    this.#file = file
    this.#requests = requests
    requests.socket.on('message', (bytes, from) => {
      if (bytes.readUInt16BE(0) === READ_REQUEST) void this.#transfer(from)
    })
  }

  static async open(host: Host, endpoint: Endpoint, file: Buffer): Promise<TftpServer> {
    return new TftpServer(host, endpoint, file, await DatagramPeer.open(host, endpoint))
  }

  /** Each transfer has a port of its own, from its first answer on: the server's transfer identifier (RFC 1350 §4). */
  async #transfer({ address, port }: RemoteInfo): Promise<void> {
    this.clients.push({ address, port })
    const transfer = await DatagramPeer.open(this.#host, { ...this.#endpoint, port: 0 })
    this.#transfers.push(transfer)
    const send = (block: number): void => {
      const from = (block - 1) * BLOCK_BYTES
      if (from > this.#file.length) return
      const head = Buffer.from([0, DATA, (block >> 8) & 0xff, block & 0xff])
      transfer.socket.send([head, this.#file.subarray(from, from + BLOCK_BYTES)], port, address)
    }
    let block = 1
    transfer.socket.on('message', (bytes, from) => {
      if (from.port !== port || from.address !== address) {
        transfer.socket.send(Buffer.from([0, ERROR, 0, 5, 0]), from.port, from.address) // unknown transfer
        return
      }
      if (bytes.readUInt16BE(0) !== ACKNOWLEDGEMENT || bytes.readUInt16BE(2) !== (block & 0xffff)) return
      send(++block)
    })
    send(block)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const transfer of this.#transfers) await transfer[Symbol.asyncDispose]()
    await this.#requests[Symbol.asyncDispose]()
  }
}
