import type { Socket } from 'node:net'
import type { Timeouts } from '../config/types.ts'
import { LimpidError, thrownText } from '../errors.ts'
import type { Endpoint } from '../net/address.ts'
import type { Finding, FlowLink } from '../policy/facts.ts'
import { lossOf, type Peer } from '../relay/reasons.ts'
import type { Watch } from '../sys/loop.ts'
import { peerSilenceMs } from '../sys/options.ts'
import type { Parties } from './admission.ts'
import type { HandledFlow, StreamApp } from './app.ts'
import { AppDials } from './app-dials.ts'
import { HeldSocket } from './app-socket.ts'
import type { ProxyContext } from './context.ts'
import { judgeRequest } from './judge-request.ts'
import type { Way } from './opening.ts'
import type { PoolPlace } from './pool.ts'
import type { CloseReason, SourceUsed } from './record.ts'

/** How long a peer may go on sending after it was told the end. */
const LINGER_MS = 2_000
/** How long an app may go on after its client has gone, until the flow's record is told without it. */
const SETTLE_MS = 5_000

/** A flow that an app is to serve. */
export interface Served extends Parties {
  /** The client's socket. */
  readonly watch: Watch
  /** While that is open. */
  link(): FlowLink | undefined
  readonly finding: Finding | undefined
  readonly rule: string | undefined
  readonly timeouts: Timeouts
  /** What is dialled. */
  upstream: Endpoint
  /** A place in a pool is the flow's: it leaves it at its end. */
  place: PoolPlace | undefined
  sourceUsed: SourceUsed | undefined
  sourceAddr: Endpoint | undefined
  /** An upstream has answered. */
  onDialled(): void
  /** Once, when all sockets are closed. `error`: what the app threw, or why there is no upstream, in a few words. */
  onServed(reason: CloseReason, error: string | undefined): void
}

/** Lets an app serve one flow. Takes the client's descriptor. */
export class ServedStream {
  readonly #flow: Served
  readonly #app: StreamApp
  readonly #way: Way
  readonly #context: ProxyContext
  readonly #client: HeldSocket
  readonly #dials: AppDials
  readonly #abort = new AbortController()
  /** The first error of a socket. */
  #loss: { readonly error: unknown; readonly reason: CloseReason } | undefined
  #end: ((reason: CloseReason) => void) | undefined
  #moved = 0
  #lastActiveAt: number

  /** `way`: how upstreams are opened. `isHeld`: until release() the app reads nothing of the client. */
  constructor(flow: Served, app: StreamApp, way: Way, context: ProxyContext, isHeld: boolean) {
    this.#flow = flow
    this.#app = app
    this.#way = way
    this.#context = context
    this.#lastActiveAt = context.resources.loop.now
    if (!isHeld) context.resources.loop.remove(flow.watch)
    this.#client = new HeldSocket(flow.watch.fd, isHeld)
    this.#watch(this.#client.socket, 'client')
    this.#dials = new AppDials(flow, way, context, (socket) => this.#watch(socket, 'upstream'))
  }

  /** To be called once; then release(), expire() and end(). */
  begin(): void {
    void this.#run().then(({ reason, error }) => this.#flow.onServed(reason, error))
  }

  async #run(): Promise<{ reason: CloseReason; error: string | undefined }> {
    const { socket } = this.#client
    let timer: NodeJS.Timeout | undefined
    const ended = new Promise<CloseReason>((resolve) => {
      this.#end = resolve
      socket.once('close', () => {
        timer = setTimeout(() => resolve(this.#loss?.reason ?? 'closed'), SETTLE_MS)
      })
    })
    const served = this.#serve()
    try {
      const reason = await Promise.race([served, ended])
      return { reason: reason ?? 'closed', error: undefined }
    } catch (error) {
      for (const one of [socket, ...this.#dials.open.keys()]) one.resetAndDestroy()
      return { reason: this.#reasonOf(error), error: thrownText(error, messageOf) }
    } finally {
      clearTimeout(timer)
      this.#end = undefined
      this.#dials.close()
      served.catch(() => {}) // nobody waits for it any more
      this.#abort.abort()
      this.release()
      for (const one of [socket, ...this.#dials.open.keys()]) one.destroy()
    }
  }

  async #serve(): Promise<undefined> {
    await this.#app.serve(this.#client.socket, this.#view())
    await Promise.all([this.#client.socket, ...this.#dials.open.keys()].map(wentOut))
  }

  #view(): HandledFlow {
    const { listener, client, originalDst, finding, rule } = this.#flow
    return {
      listener: listener.name,
      clientAddr: { ...client },
      originalDst: { ...originalDst },
      link: this.#flow.link(),
      protocol: finding?.protocol,
      host: finding?.host,
      names: this.#context.namesOf(client.address, originalDst.address),
      rule,
      signal: this.#abort.signal,
      dial: (to) => this.#dials.dial(to),
      judge: (finding) => {
        const isOpen = !this.#client.socket.destroyed
        return judgeRequest(this.#flow, finding, { way: this.#way, isOpen }, this.#context)
      },
    }
  }

  /** What the client has said was looked at. */
  release(): void {
    if (!this.#client.isHeld) return
    this.#context.resources.loop.remove(this.#flow.watch)
    this.#client.release()
  }

  get bytesClientToUpstream(): number {
    return this.#client.socket.bytesRead
  }

  get bytesUpstreamToClient(): number {
    return this.#client.socket.bytesWritten
  }

  /** Ends the flow now; both sides see a reset. */
  end(reason: CloseReason): void {
    if (this.#end === undefined) return
    this.release()
    for (const socket of [this.#client.socket, ...this.#dials.open.keys()]) socket.resetAndDestroy()
    this.#end(reason)
  }

  /** Ends the flow if a timeout has passed at `now` (the loop's milliseconds). To be called every second or so. */
  expire(now: number, { idleMs, halfCloseMs, deadPeerMs }: Timeouts): void {
    const { socket } = this.#client
    let moved = socket.bytesRead + socket.bytesWritten - socket.writableLength
    for (const one of this.#dials.open.keys()) moved += one.bytesRead + one.bytesWritten - one.writableLength
    if (moved !== this.#moved) this.#lastActiveAt = now
    this.#moved = moved
    const isHalfClosed = halfCloseMs > 0 && (socket.readableEnded || socket.writableFinished)
    const limit = isHalfClosed ? halfCloseMs : idleMs
    if (limit > 0 && now - this.#lastActiveAt >= limit) this.end(isHalfClosed ? 'half-close-timeout' : 'idle-timeout')
    else if (deadPeerMs > 0 && isSilent(socket, this.#flow.watch.fd, deadPeerMs)) this.end('client-lost')
    else if (deadPeerMs > 0 && [...this.#dials.open].some(([one, fd]) => isSilent(one, fd, deadPeerMs))) {
      this.end('upstream-lost')
    }
  }

  #watch(socket: Socket, peer: Peer): void {
    // also so that an app which does not listen for errors ends its flow, and not the process
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.errno === undefined) return // the app's own, by which it was destroyed
      this.#loss ??= { error, reason: lossOf(-error.errno, peer) }
    })
  }

  #reasonOf(error: unknown): CloseReason {
    if (error !== null && typeof error === 'object') {
      const reason = this.#dials.reasonOf(error)
      if (reason !== undefined) return reason
      const isOfSocket = error === this.#loss?.error || ('code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE')
      if (isOfSocket && this.#loss !== undefined) return this.#loss.reason
    }
    return 'app-failed'
  }
}

/**
 * Resolves when what was end()ed has been taken, by a peer that may go on sending for a while: closed with its bytes unread, the socket
 * would take away from it what it has not read yet.
 */
async function wentOut(socket: Socket): Promise<void> {
  if (!socket.writableEnded || socket.destroyed) return
  let timer: NodeJS.Timeout | undefined
  await new Promise<void>((resolve) => {
    const look = (): void => {
      if (socket.destroyed || (socket.writableFinished && socket.readableEnded)) resolve()
      else if (socket.writableFinished) timer ??= setTimeout(resolve, LINGER_MS)
    }
    for (const event of ['finish', 'end', 'close']) socket.on(event, look)
    socket.resume()
    look()
  })
  clearTimeout(timer)
}

function isSilent(socket: Socket, fd: number, deadPeerMs: number): boolean {
  return !socket.destroyed && peerSilenceMs(fd) >= deadPeerMs
}

/** Of ours without the code: a record has its reason. */
function messageOf(error: unknown): string {
  return error instanceof LimpidError ? error.message : String(error)
}
