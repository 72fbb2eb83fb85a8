import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { type Carried, type Exchange, greeting, inTime, readGreeting, type Service, type Sight } from './exchange.ts'
import type { Host } from './host.ts'

const PAYLOAD_BYTES = 65_536
const MAX_GREETING_BYTES = 128

/** A server that tells each peer which address it sees, then sends back what it gets, and closes after the peer did. */
export function serveTcp(host: Host, endpoint: Endpoint): Service {
  const connections = new Set<Socket>()
  const server = host.listen(endpoint).on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.on('error', () => {}) // the client is told by its own side
    socket.once('close', () => connections.delete(socket))
    socket.write(greeting({ address: socket.remoteAddress!, port: socket.remotePort! }))
    socket.pipe(socket)
  })
  return {
    open: dial,
    close: () => {
      server.close()
      for (const socket of connections) socket.resetAndDestroy()
    },
  }
}

/** Connects, and reads the greeting. */
async function dial(host: Host, to: Endpoint): Promise<Exchange> {
  const socket = host.connect(to)
  socket.on('error', () => {}) // whoever waits for something is told
  try {
    const text = await inTime(firstLine(socket), `an answer from ${formatEndpoint(to)} to ${host.name}`)
    return new TcpExchange(socket, {
      client: { address: socket.localAddress!, port: socket.localPort! },
      clientSees: { address: socket.remoteAddress!, port: socket.remotePort! },
      serverSees: readGreeting(text),
    })
  } catch (error) {
    socket.destroy()
    throw error
  }
}

class TcpExchange implements Exchange {
  readonly sight: Sight
  readonly #socket: Socket

  constructor(socket: Socket, sight: Sight) {
    this.#socket = socket
    this.sight = sight
  }

  /** Sends random bytes and FIN, and reads what comes back until FIN. */
  async finish(): Promise<Carried> {
    const sent = randomBytes(PAYLOAD_BYTES)
    this.#socket.end(sent)
    const received = await inTime(rest(this.#socket), `the ${PAYLOAD_BYTES} bytes back`)
    if (!received.equals(sent)) {
      throw new LimpidError('LIMPID_LAB', `${received.length} bytes came back for ${sent.length}, or others`)
    }
    return { bytes: received.length }
  }

  close(): void {
    this.#socket.destroy()
  }
}

async function firstLine(socket: Socket): Promise<string> {
  let text = ''
  while (!text.includes('\n')) {
    if (socket.readableEnded || text.length > MAX_GREETING_BYTES) {
      throw new LimpidError('LIMPID_LAB', `instead of a greeting came ${JSON.stringify(text)}`)
    }
    await Promise.race([once(socket, 'readable'), once(socket, 'end')])
    text += (socket.read() as Buffer | null)?.toString('latin1') ?? ''
  }
  return text
}

async function rest(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
