import { randomBytes } from 'node:crypto'
import type { RemoteInfo } from 'node:dgram'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint, sameEndpoint } from '../net/address.ts'
import { DatagramClient, senderOf } from './datagram-client.ts'
import { type Carried, type Exchange, greeting, readGreeting, type Service, type Sight } from './exchange.ts'
import type { Host } from './host.ts'

const QUESTION = 'who am I?'
/** Nothing, a little, as much as fits a packet of 1500 bytes over IPv6, and more than that: 8 KiB are six fragments. */
const SIZES_BYTES = [0, 1, 64, 512, 1400, 1452, 4096, 8192]

/** A server that tells a peer who asks which address it sees, and sends every other datagram back. */
export function serveUdp(host: Host, endpoint: Endpoint): Service {
  const socket = host.datagramSocket(endpoint)
  socket.on('error', () => {}) // the client is told by its own side
  socket.on('message', (bytes: Buffer, info: RemoteInfo) => {
    const answer = bytes.toString('latin1') === QUESTION ? greeting(senderOf(info)) : bytes
    socket.send(answer, info.port, info.address)
  })
  return { open: ask, close: () => socket.close() }
}

/** Asks the server whom it sees. */
async function ask(host: Host, to: Endpoint, from: string): Promise<Exchange> {
  const client = new DatagramClient(host, to, from)
  try {
    const answer = await client.ask(QUESTION, `an answer from ${formatEndpoint(to)} to ${host.name}`)
    const serverSees = readGreeting(answer.bytes.toString('latin1'))
    return new UdpExchange(client, { client: client.address, clientSees: answer.from, serverSees })
  } catch (error) {
    client.close()
    throw error
  }
}

class UdpExchange implements Exchange {
  readonly sight: Sight
  readonly #client: DatagramClient

  constructor(client: DatagramClient, sight: Sight) {
    this.#client = client
    this.sight = sight
  }

  /** Sends datagrams of several sizes, each when the one before has come back from the same address. */
  async finish(): Promise<Carried> {
    let bytes = 0
    for (const size of SIZES_BYTES) {
      const sent = randomBytes(size)
      const { bytes: received, from } = await this.#client.ask(sent, `the datagram of ${size} bytes back`)
      if (!received.equals(sent)) {
        throw new LimpidError('LIMPID_LAB', `${received.length} bytes came back for a datagram of ${size}, or others`)
      }
      if (!sameEndpoint(from, this.sight.clientSees)) {
        throw new LimpidError('LIMPID_LAB', `a datagram of ${size} bytes came back from ${formatEndpoint(from)}`)
      }
      bytes += size
    }
    return { bytes }
  }

  close(): void {
    this.#client.close()
  }
}
