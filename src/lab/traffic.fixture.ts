import { createHash, type Hash } from 'node:crypto'
import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import type { Endpoint } from '../net/address.ts'
import type { Host } from './host.ts'

/** A server of the lab with what it saw. */
export interface LabServer extends AsyncDisposable {
  readonly endpoint: Endpoint
  /** The peer of each connection, in order, as accept() told it. */
  readonly peers: Endpoint[]
  readonly connections: Set<Socket>
}

/** Listens on a host and hands each connection to `serve`; errors of a connection are left to `serve`. */
export async function serve(host: Host, endpoint: Endpoint, serve: (socket: Socket) => void): Promise<LabServer> {
  const peers: Endpoint[] = []
  const connections = new Set<Socket>()
  const server: Server = host.listen(endpoint)
  server.on('connection', (socket: Socket) => {
    peers.push({ address: socket.remoteAddress!, port: socket.remotePort! })
    connections.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => connections.delete(socket))
    serve(socket)
  })
  if (!server.listening) await once(server, 'listening')
  return {
    endpoint,
    peers,
    connections,
    [Symbol.asyncDispose]: async () => {
      for (const socket of connections) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** How a connection ended for one who read it to the end. */
export interface Received {
  readonly bytes: number
  readonly sha256: string
  /** The error that ended it (`ECONNRESET` …), or undefined after a FIN. */
  readonly failure: string | undefined
}

/** Reads until FIN or an error; never rejects. */
export function receiveAll(socket: Socket): Promise<Received> {
  const hash = createHash('sha256')
  let bytes = 0
  return new Promise((resolve) => {
    const end = (failure?: string): void => resolve({ bytes, sha256: hash.copy().digest('hex'), failure })
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      hash.update(chunk)
    })
    socket.once('end', () => end())
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code))
    socket.once('close', () => end('closed'))
  })
}

/** Pseudo-random bytes that are cheap to make again on the other side: `size` bytes from `seed`. */
export function* pattern(seed: number, size: number, chunkSize = 65_536): Generator<Buffer> {
  let state = seed | 1
  for (let left = size; left > 0; left -= chunkSize) {
    const words = new Uint32Array(Math.ceil(Math.min(left, chunkSize) / 4))
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
      words[i] = state
    }
    yield Buffer.from(words.buffer, 0, Math.min(left, chunkSize))
  }
}

export function patternHash(seed: number, size: number): string {
  const hash: Hash = createHash('sha256')
  for (const chunk of pattern(seed, size)) hash.update(chunk)
  return hash.digest('hex')
}

/** Writes the pattern with backpressure; ends quietly when the peer is gone. */
export async function sendPattern(socket: Socket, seed: number, size: number): Promise<void> {
  for (const chunk of pattern(seed, size)) {
    if (socket.destroyed) return
    if (!socket.write(chunk)) await drained(socket)
  }
}

/** Waits until the socket takes more, or is gone; leaves no event handler on it. */
export async function drained(socket: Socket): Promise<void> {
  const waiting = new AbortController()
  const { signal } = waiting
  await Promise.race([once(socket, 'drain', { signal }), once(socket, 'close', { signal })]).catch(() => {})
  waiting.abort()
}

/** For a client's host: none of its ports is one that the proxy chooses by itself, so that `client-port` finds it free. */
export const OWN_PORTS = { 'net.ipv4.ip_local_port_range': '20000 29999' } as const // the kernel's own range begins at 32768

/** How long a test waits for what must happen, where how soon is not what it is about: a busy machine is no failure. */
export const PATIENCE_MS = 30_000

/** Waits until `condition` holds. @throws Error after `withinMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  withinMs = PATIENCE_MS,
): Promise<void> {
  const deadlineAt = performance.now() + withinMs
  while (!(await condition())) {
    if (performance.now() > deadlineAt) throw new Error(`no ${what} within ${withinMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
