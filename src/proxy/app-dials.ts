import type { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { EPOLLOUT } from '../sys/loop.ts'
import { refusalOf } from './admission.ts'
import { socketOf } from './app-socket.ts'
import type { Served } from './app-stream.ts'
import type { ProxyContext } from './context.ts'
import { destinationOf, withPort } from './destination.ts'
import { dial } from './dial.ts'
import { DIAL_CODES } from './dial-tcp.ts'
import type { Way } from './opening.ts'
import type { DialReason, RefusalReason } from './record.ts'

/** The upstreams that an app dials for one flow. */
export class AppDials {
  readonly #flow: Served
  readonly #way: Way
  readonly #context: ProxyContext
  readonly #onSocket: (socket: Socket) => void
  /** With their descriptors. */
  readonly open = new Map<Socket, number>()
  readonly #underWay = new Set<() => void>()
  /** Why dials have failed, by what was thrown. */
  readonly #failed = new WeakMap<object, DialReason | RefusalReason>()
  #isClosed = false

  /** `way`: how upstreams are opened. `onSocket`: told of each that was. */
  constructor(flow: Served, way: Way, context: ProxyContext, onSocket: (socket: Socket) => void) {
    this.#flow = flow
    this.#way = way
    this.#context = context
    this.#onSocket = onSocket
  }

  /** See HandledFlow.dial(). */
  async dial(to: Endpoint | undefined): Promise<Socket> {
    const flow = this.#flow
    if (to !== undefined) return await this.#dialThere(to)
    if (flow.place === undefined) {
      const destination = destinationOf(this.#way, flow, this.#context.pools)
      if (destination.kind === 'none') throw this.#failure('dial-failed', destination.why)
      flow.place = destination.place
      if (destination.place === undefined) return await this.#dialThere(destination.endpoint)
    }
    for (;;) {
      try {
        return await this.#dialThere(withPort(flow.place!.endpoint, flow.originalDst))
      } catch (error) {
        const reason = this.#failed.get(error as object) as DialReason | undefined
        if (reason === undefined || this.#isClosed || !flow.place!.move(reason, flow.source.kind)) throw error
      }
    }
  }

  /** Why the dial failed that has thrown this; undefined: none has. */
  reasonOf(error: object): DialReason | RefusalReason | undefined {
    return this.#failed.get(error)
  }

  /** The flow has ended: dials that are under way are given up, and nothing is dialled any more. What is open stays so. */
  close(): void {
    this.#isClosed = true
    for (const abandon of this.#underWay) abandon()
  }

  async #dialThere(to: Endpoint): Promise<Socket> {
    const flow = this.#flow
    const { resources, counters, mark, ports } = this.#context
    const { listener, client, reached, originalDst, source } = flow
    const refusal = refusalOf({ listener, client, reached, originalDst, upstream: to, source }, this.#context)
    if (refusal !== undefined) throw this.#failure(refusal, `cannot dial ${formatEndpoint(to)}: ${refusal}`)
    if (this.#isClosed) throw this.#failure('client-gone', `cannot dial ${formatEndpoint(to)}: the flow has ended`)
    flow.upstream = to
    const { connectMs, deadPeerMs } = flow.timeouts
    const { mark: bits = 0, dscp } = this.#way
    const options = {
      source,
      mark: mark | bits,
      dscp,
      connectMs,
      deadPeerMs,
      first: undefined,
      ports,
      events: EPOLLOUT,
    }
    let onEnd = (): void => {}
    const dialled = await dial(to, options, resources.loop, counters, (abandon) => {
      onEnd = abandon
      this.#underWay.add(abandon)
    })
    this.#underWay.delete(onEnd)
    if (dialled.kind === 'failed') {
      throw this.#failure(dialled.reason, `cannot dial ${formatEndpoint(to)}: ${dialled.reason}`)
    }
    flow.sourceUsed ??= dialled.source
    flow.sourceAddr ??= dialled.sourceAddr
    flow.onDialled()
    const socket = socketOf(dialled.fd)
    this.#onSocket(socket)
    this.open.set(socket, dialled.fd)
    socket.once('close', () => this.open.delete(socket))
    if (this.#isClosed) socket.destroy()
    return socket
  }

  #failure(reason: DialReason | RefusalReason, message: string): LimpidError {
    const code = reason in DIAL_CODES ? DIAL_CODES[reason as DialReason] : 'LIMPID_DIAL_FAILED'
    const error = new LimpidError(code, message)
    this.#failed.set(error, reason)
    return error
  }
}
