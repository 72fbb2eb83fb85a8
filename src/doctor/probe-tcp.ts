import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint, Family } from '../net/address.ts'
import { parseAddress, sameEndpoint } from '../net/address.ts'
import { readTcpSockets } from './kernel-sockets.ts'
import type { ProbeNetwork } from './probe-network.ts'

/** What became of one connection from the probe's client to the probe's server. */
export interface TcpOutcome {
  /** The client's handshake was answered. */
  readonly connected: boolean
  /** A socket of this host answered, not the server. */
  readonly taken: boolean
  /** Bytes of the server came to the client. */
  readonly answered: boolean
  /** `silence`, or the errno's name. */
  readonly failure: string | undefined
  /** Whom the server saw. */
  readonly serverSaw: Endpoint | undefined
  /** The server has seen a SYN, and nothing after it. */
  readonly serverWaits: boolean
  readonly ms: number
}

const WAIT_MS = 900 // before a lost SYN is sent again; all hops are within this host
const GREETING = 'limpid doctor\n'
const FIRST_PORT = 40_000

let ports = 0

/** Dials the probe's server from its client, to a port that is taken. Never rejects for what packets suffer. */
export async function dialThrough(network: ProbeNetwork, family: Family, port: number): Promise<TcpOutcome> {
  const { client, server } = network.addresses[family]!
  const from = { address: client, port: FIRST_PORT + (process.pid % 20_000) + ports++ }
  let serverSaw: Endpoint | undefined
  const accepted: Socket[] = []
  const listening = network.server.listen({ address: server, port })
  listening.on('connection', (socket) => {
    accepted.push(socket)
    socket.on('error', () => {})
    serverSaw = { address: parseAddress(socket.remoteAddress ?? '') ?? '', port: socket.remotePort ?? 0 }
    socket.end(GREETING)
  })
  if (!listening.listening) await once(listening, 'listening')
  const startedAt = performance.now()
  const socket = network.client.connect({ address: server, port }, { from })
  try {
    let connected = false
    let taken = false
    const { said, failure } = await conversation(socket, () => {
      connected = true
      taken = readTcpSockets().some(({ remote }) => sameEndpoint(remote, from))
    })
    const waiting = network.server.inside(readTcpSockets).some(({ state }) => state === 'SYN-RECV')
    return {
      connected,
      taken: connected && (taken || (serverSaw === undefined && !waiting)),
      answered: said === GREETING,
      failure,
      serverSaw,
      serverWaits: waiting,
      ms: performance.now() - startedAt,
    }
  } finally {
    socket.destroy()
    for (const each of accepted) each.destroy()
    await closeServer(listening)
  }
}

/** Whether all of it worked; with a fixed destination of the listener's the probe's server is not asked. */
export function isThrough({ connected, taken, answered }: TcpOutcome, { to }: ListenerConfig): boolean {
  return connected && taken && (answered || to !== undefined)
}

async function closeServer(server: Server): Promise<void> {
  await new Promise((resolve) => server.close(resolve))
}

function conversation(socket: Socket, onConnect: () => void): Promise<{ said: string; failure: string | undefined }> {
  return new Promise((resolve) => {
    let said = ''
    const settle = (failure: string | undefined) => {
      clearTimeout(timer)
      resolve({ said, failure })
    }
    const timer = setTimeout(() => settle('silence'), WAIT_MS)
    socket.once('connect', onConnect)
    socket.on('data', (bytes) => {
      said += bytes.toString()
    })
    socket.once('end', () => settle(undefined))
    socket.on('error', (error: NodeJS.ErrnoException) => settle(error.code ?? error.message))
  })
}
