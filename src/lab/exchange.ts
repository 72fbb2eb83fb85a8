import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint, parseEndpoint } from '../net/address.ts'
import type { Host } from './host.ts'

const STEP_TIMEOUT_MS = 5_000
const PAYLOAD_BYTES = 65_536
const GREETING = /^you are (\S+)\n/
const MAX_GREETING_BYTES = 128

export interface GreetingServer {
  /** Stops listening, and resets connections that are still open. */
  close(): void
}

/** A server that tells each peer which address it sees, then sends back what it gets, and closes after the peer did. */
export function greetingServer(host: Host, endpoint: Endpoint): GreetingServer {
  const connections = new Set<Socket>()
  const server = host.listen(endpoint).on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.on('error', () => {}) // the client is told by its own side
    socket.once('close', () => connections.delete(socket))
    socket.write(`you are ${formatEndpoint({ address: socket.remoteAddress!, port: socket.remotePort! })}\n`)
    socket.pipe(socket)
  })
  return {
    close: () => {
      server.close()
      for (const socket of connections) socket.resetAndDestroy()
    },
  }
}

/** What both ends saw of a connection that is open. */
export interface Sight {
  /** The client's own end. */
  readonly client: Endpoint
  /** The client's peer (getpeername). */
  readonly clientSees: Endpoint
  /** The server's peer, as it told the client. */
  readonly serverSees: Endpoint
}

/** A client's connection to the greeting server, greeted already. */
export class Exchange {
  readonly sight: Sight
  readonly #socket: Socket

  private constructor(socket: Socket, sight: Sight) {
    this.#socket = socket
    this.sight = sight
  }

  /** @throws LimpidError LIMPID_LAB when there is no connection and greeting in time. */
  static async open(host: Host, to: Endpoint): Promise<Exchange> {
    const socket = host.connect(to)
    socket.on('error', () => {}) // whoever waits for something is told
    try {
      const greeting = await inTime(firstLine(socket), `an answer from ${formatEndpoint(to)} to ${host.name}`)
      const serverSees = parseEndpoint(GREETING.exec(greeting)?.[1] ?? '')
      if (serverSees === undefined) throw new LimpidError('LIMPID_LAB', `the server said ${JSON.stringify(greeting)}`)
      const client = { address: socket.localAddress!, port: socket.localPort! }
      return new Exchange(socket, {
        client,
        clientSees: { address: socket.remoteAddress!, port: socket.remotePort! },
        serverSees,
      })
    } catch (error) {
      socket.destroy()
      throw error
    }
  }

  /** Sends random bytes and FIN, and reads what comes back until FIN. Returns the count when all bytes are the same. */
  async finish(): Promise<number> {
    const sent = randomBytes(PAYLOAD_BYTES)
    this.#socket.end(sent)
    const received = await inTime(rest(this.#socket), `the ${PAYLOAD_BYTES} bytes back`)
    if (!received.equals(sent)) {
      throw new LimpidError('LIMPID_LAB', `${received.length} bytes came back for ${sent.length}, or others`)
    }
    return received.length
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

async function inTime<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const error = new LimpidError('LIMPID_LAB', `no sign of ${what} within ${STEP_TIMEOUT_MS} ms`)
    timer = setTimeout(() => reject(error), STEP_TIMEOUT_MS)
  })
  try {
    return await Promise.race([work, late])
  } catch (cause) {
    if (cause instanceof LimpidError) throw cause
    throw new LimpidError('LIMPID_LAB', `no ${what}: ${(cause as Error).message}`, { cause })
  } finally {
    clearTimeout(timer)
    work.catch(() => {}) // it fails later, when the socket is destroyed
  }
}
