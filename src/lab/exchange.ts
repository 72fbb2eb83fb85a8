import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint, parseEndpoint } from '../net/address.ts'
import type { Host } from './host.ts'
import type { Evidence } from './report.ts'

const STEP_TIMEOUT_MS = 5_000
const GREETING = /^you are (\S+)\n/

/** What both ends saw of a flow that is open. */
export interface Sight {
  /** The client's own end. */
  readonly client: Endpoint
  /** The client's peer: getpeername, or who answered a datagram. */
  readonly clientSees: Endpoint
  /** The server's peer, as it told the client. */
  readonly serverSees: Endpoint
}

/** What went through after the sockets were looked at. */
export interface Carried {
  /** Bytes that went to the server and came back unchanged. */
  readonly bytes?: number
  readonly evidence?: readonly Evidence[]
}

/** A client's flow to a service of the lab: open, and both ends have told whom they see. */
export interface Exchange {
  readonly sight: Sight
  /** Goes on to the end. @throws LimpidError LIMPID_LAB when something is lost or changed. */
  finish(): Promise<Carried>
  close(): void
}

/** A server that is up, and the client that speaks its language. */
export interface Service {
  /**
   * Begins an exchange on another host, which has the address `from`: dials `to`, and waits for an answer.
   * @throws LimpidError LIMPID_LAB when there is none in time.
   */
  open(client: Host, to: Endpoint, from: string): Promise<Exchange>
  /** Ends the server with all that it has open. */
  close(): void
}

/** Starts the server on a host. */
export type Serve = (host: Host, endpoint: Endpoint) => Service

/** What a server says first: whom it sees. */
export function greeting(peer: Endpoint): string {
  return `you are ${formatEndpoint(peer)}\n`
}

/** Whom the server sees, out of its greeting. @throws LimpidError LIMPID_LAB for another text. */
export function readGreeting(text: string): Endpoint {
  const peer = parseEndpoint(GREETING.exec(text)?.[1] ?? '')
  if (peer === undefined) throw new LimpidError('LIMPID_LAB', `the server said ${JSON.stringify(text)}`)
  return peer
}

/** Waits for one step of an exchange. @throws LimpidError LIMPID_LAB when it fails, or takes longer than 5 s. */
export async function inTime<T>(work: Promise<T>, what: string): Promise<T> {
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
