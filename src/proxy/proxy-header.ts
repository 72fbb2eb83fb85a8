import type { ListenerConfig } from '../config/types.ts'
import { type ProxyHeader, probeProxyProtocol } from '../inspect/proxy-protocol.ts'
import { type Endpoint, familyOf } from '../net/address.ts'
import { prefixContains } from '../net/prefix.ts'
import { RELAY_EVENTS } from '../relay/tcp.ts'
import type { Connection } from '../sys/accept.ts'
import { EAGAIN, EINTR } from '../sys/errno.ts'
import { EPOLLERR, EPOLLIN, EPOLLRDHUP, type EventLoop, type EventTarget } from '../sys/loop.ts'
import { peekBytes, receive } from '../sys/socket.ts'
import type { ProxyContext } from './context.ts'

const HEADER_BYTES = 4_096 // of which the probe says at the latest that it is none
const HEADER_MS = 5_000 // three at the least (proxy-protocol.txt §2): a segment that is lost once or twice comes by then

/** What a proxy in front has told of a connection. */
export interface Told {
  /** The proxy. */
  readonly front: Endpoint
  readonly client: Endpoint
  readonly originalDst: Endpoint
}

/** `proxy-header`: what came is no header, not all of it came in time, or it says what cannot be. */
export type HeaderFailure = 'proxy-header' | 'client-gone' | 'shutdown'

/** `told` undefined: the connection is the proxy's own (LOCAL, UNKNOWN), and its addresses the true ones. */
export type HeaderOutcome =
  | { readonly kind: 'read'; readonly told: Told | undefined }
  | { readonly kind: 'failed'; readonly why: HeaderFailure }

/** Whether this peer is one that sends a header first. Who else sends one is a client like others, and these are its first bytes. */
export function sendsHeader({ acceptProxyProtocol }: ListenerConfig, peer: Endpoint): boolean {
  return acceptProxyProtocol?.from.some((prefix) => prefixContains(prefix, peer.address)) === true
}

/** Every wait of the thread looks with it. */
const buffer = new Uint8Array(HEADER_BYTES)

/**
 * Reads the header that a proxy sends before all else, and not one byte more. Has the accepted socket until `onOutcome`, which is told once
 * and owns it then.
 */
export class HeaderWait implements EventTarget {
  readonly #connection: Connection
  readonly #loop: EventLoop
  readonly #onOutcome: (outcome: HeaderOutcome) => void
  readonly #timer: NodeJS.Timeout

  constructor(connection: Connection, loop: EventLoop, onOutcome: (outcome: HeaderOutcome) => void) {
    this.#connection = connection
    this.#loop = loop
    this.#onOutcome = onOutcome
    connection.watch.target = this
    this.#timer = setTimeout(() => this.#fail('proxy-header'), HEADER_MS)
  }

  onEvents(events: number): void {
    if ((events & EPOLLERR) !== 0) {
      this.#fail('client-gone')
      return
    }
    if ((events & (EPOLLIN | EPOLLRDHUP)) === 0) return
    const count = peekBytes(this.#connection.watch.fd, buffer, HEADER_BYTES)
    if (count === -EAGAIN || count === -EINTR) return
    const probed = count > 0 ? probeProxyProtocol(buffer.subarray(0, count)) : undefined
    if (probed?.kind === 'match') this.#take(probed.finding)
    else if (probed?.kind !== 'more' || (events & EPOLLRDHUP) !== 0) this.#fail('proxy-header') // behind a FIN nothing comes
  }

  #take(header: ProxyHeader): void {
    const told = toldBy(header, this.#connection.clientAddr)
    const isTaken = receive(this.#connection.watch.fd, buffer, header.length) === header.length // it was there a moment ago
    if (told === 'impossible' || !isTaken) this.#fail('proxy-header')
    else this.#end({ kind: 'read', told })
  }

  /** Nobody waits for the header any more. */
  abandon(): void {
    this.#fail('shutdown')
  }

  #fail(why: HeaderFailure): void {
    this.#end({ kind: 'failed', why })
  }

  #end(outcome: HeaderOutcome): void {
    clearTimeout(this.#timer)
    this.#loop.modify(this.#connection.watch, RELAY_EVENTS) // edge-triggered: what was told to this one is told once more
    this.#onOutcome(outcome)
  }
}

/** Waits for the header that comes before all else, and has the connection until `then` is called. */
export function awaitHeader(
  connection: Connection,
  { awaited, resources }: Pick<ProxyContext, 'awaited' | 'resources'>,
  then: (header: HeaderOutcome) => void,
): void {
  const wait = new HeaderWait(connection, resources.loop, (header) => {
    awaited.delete(wait)
    then(header)
  })
  awaited.add(wait)
}

function toldBy({ client, originalDst, transport }: ProxyHeader, front: Endpoint): Told | undefined | 'impossible' {
  if (client === undefined || originalDst === undefined) return undefined
  const isFlow = transport === 'tcp' && originalDst.port !== 0
  const isOneFamily = familyOf(client.address) === familyOf(originalDst.address)
  return isFlow && isOneFamily ? { front, client, originalDst } : 'impossible'
}
