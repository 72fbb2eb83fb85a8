import type { Socket } from 'node:net'
import { HEADER_BYTES, idAndOpcode, put16 } from '../../inspect/dns.ts'
import { framed, MessageFrames } from './frames.ts'
import { PendingQueries, type PendingQuery } from './pending.ts'
import type { Upstreams } from './upstreams.ts'

/** A query that waits, with what is needed to ask again. */
export interface StreamQuery extends PendingQuery {
  /** With the id that the server sees. */
  readonly message: Buffer
  /** Servers of which any will do; undefined: the one that the client dialled, or the listener's. */
  readonly upstreams: Upstreams | undefined
  /** A zone transfer: many messages answer it, the first alone must have the question (RFC 5936 §2.2). */
  readonly isTransfer: boolean
  tries: number
}

interface UpstreamStreamOptions {
  readonly maxQueries: number
  /** A message of the server, the receiver's to change. */
  onMessage(message: Buffer): void
  /** Once, unless destroy() was called: with the queries that have no answer. `wasDialled`: there was a connection. */
  onGone(unanswered: readonly StreamQuery[], wasDialled: boolean): void
}

/** A stream to one server, for as long as there is something to ask. Takes the socket that is being dialled. */
export class UpstreamStream {
  readonly #options: UpstreamStreamOptions
  readonly #queries: PendingQueries<StreamQuery>
  readonly #frames = new MessageFrames()
  #socket: Socket | undefined
  #isHeld = false
  #isGone = false

  constructor(dialling: Promise<Socket>, options: UpstreamStreamOptions) {
    this.#options = options
    this.#queries = new PendingQueries(options.maxQueries)
    dialling.then(
      (socket) => this.#begin(socket),
      () => this.#gone(false),
    )
  }

  get outstanding(): number {
    return this.#queries.size
  }

  /** Forgets the queries whose time is over; bytes of the others. */
  waitingBytes(nowMs: number): number {
    let bytes = 0
    for (const [id, query] of this.#queries.entries()) {
      if (query.deadlineAtMs <= nowMs) this.#queries.delete(id)
      else bytes += query.message.length
    }
    return bytes
  }

  ask(query: StreamQuery): void {
    const isQuery = query.key !== ''
    const id = this.#queries.add(query, isQuery ? undefined : idAndOpcode(query.message))
    if (isQuery) put16(query.message, 0, id)
    this.#socket?.write(framed(query.message)) // else when it is dialled
  }

  /** The query that a message answers by its id. */
  waiting(message: Buffer, nowMs: number): StreamQuery | undefined {
    return message.length < HEADER_BYTES || (message[2]! & 0x80) === 0
      ? undefined
      : this.#queries.get(idAndOpcode(message), nowMs)
  }

  /** `message`, with its id, was the answer. */
  settle(message: Buffer): void {
    this.#queries.delete(idAndOpcode(message))
  }

  /** No more is read while the client does not read. */
  hold(isHeld: boolean): void {
    if (this.#isHeld === isHeld) return
    this.#isHeld = isHeld
    if (isHeld) this.#socket?.pause()
    else this.#socket?.resume()
  }

  destroy(): void {
    this.#isGone = true
    this.#socket?.destroy()
  }

  #begin(socket: Socket): void {
    socket.on('error', () => {}) // 'close' follows
    if (this.#isGone) {
      socket.destroy()
      return
    }
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#frames.push(chunk)
      for (let message = this.#frames.next(); message !== undefined; message = this.#frames.next()) {
        if (!this.#isGone) this.#options.onMessage(message)
      }
    })
    socket.once('end', () => socket.destroy()) // it answers no more
    socket.once('close', () => this.#gone(true))
    if (this.#isHeld) socket.pause()
    for (const [, query] of this.#queries.entries()) socket.write(framed(query.message))
    if (socket.destroyed) this.#gone(true)
  }

  #gone(wasDialled: boolean): void {
    if (this.#isGone) return
    this.#isGone = true
    this.#options.onGone(
      Array.from(this.#queries.entries(), ([, query]) => query),
      wasDialled,
    )
  }
}
