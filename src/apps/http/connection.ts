import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { finished } from 'node:stream/promises'
import type { HandledFlow } from '../../proxy/app.ts'
import type { FlowHooks } from '../../proxy/flow-hooks.ts'
import type { HttpCounters } from './app.ts'
import { decideRequest } from './decide.ts'
import { forward } from './forward.ts'
import { page, sendPage } from './page.ts'
import { tunnel, tunnelProtocol } from './tunnel.ts'
import { UpstreamAgent } from './upstream.ts'

/** Requests that wait behind the one that is served: what RFC 9112 §9.3.2 lets a client send ahead. */
const PAUSE_AT = 8
/** A chunk that is read at once may hold many more; beyond that a client is up to something. */
const MOST_WAITING = 100
/** How long a request's head may take from its first byte. */
const HEAD_MS = 10_000

export interface HttpParts {
  readonly hooks: FlowHooks | undefined
  readonly counters: HttpCounters
}

/** One client's connection: its requests are decided and forwarded one after the other. */
export class HttpConnection {
  readonly client: Socket
  readonly flow: HandledFlow
  readonly hooks: FlowHooks | undefined
  readonly counters: HttpCounters
  readonly upstream: UpstreamAgent
  #last: Promise<void> = Promise.resolve()
  #waiting = 0
  #isPaused = false
  #isUpstreamGone = false
  #hasClientEnded = false
  #seenBytes = 0

  constructor(client: Socket, flow: HandledFlow, { hooks, counters }: HttpParts) {
    this.client = client
    this.flow = flow
    this.hooks = hooks
    this.counters = counters
    this.upstream = new UpstreamAgent(flow, () => this.#onUpstreamClose())
  }

  /** After the server has it. Resolves when the client's socket is closed. */
  async run(): Promise<void> {
    const { client } = this
    // a listener, though it is taken away at once, has Node's parser get its bytes by the socket: else pause() would not hold it back
    const nothing = (): void => {}
    client.on('data', nothing).off('data', nothing)
    client.once('end', () => {
      this.#hasClientEnded = true
      if (this.#waiting === 0) client.destroySoon()
    })
    const timer = setInterval(() => this.#checkHead(), HEAD_MS)
    if (!client.closed) await new Promise<void>((resolve) => client.once('close', () => resolve()))
    clearInterval(timer)
    this.upstream.destroy()
  }

  take(req: IncomingMessage, res: ServerResponse): void {
    res.sendDate = false // the upstream's Date goes on
    this.#queue(async () => {
      await this.#serve(req, res)
      await finished(res).catch(() => {})
    })
  }

  /** The parser has let go of the socket: `head` are bytes that came behind the request's head. */
  takeUpgrade(req: IncomingMessage, head: Buffer): void {
    this.#queue(async () => {
      if (this.client.destroyed) return
      if (tunnelProtocol(req) !== undefined) return await this.#serveTunnel(req, head)
      if (req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? 0) > 0) {
        // what was read of it cannot be given back to the parser
        this.counters.malformed++
        return await this.#answer(req, page(400, 'Bad Request: a body together with Upgrade', true))
      }
      await this.#serve(req, this.#responseTo(req))
    })
  }

  #queue(serve: () => Promise<void>): void {
    this.counters.requests++
    if (++this.#waiting > MOST_WAITING) {
      this.client.resetAndDestroy()
      return
    }
    if (this.#waiting > PAUSE_AT && !this.#isPaused) {
      this.#isPaused = true
      process.nextTick(() => this.client.pause()) // the parser resumes it at each message's end
    }
    this.#last = this.#last
      .then(serve)
      .catch(() => void this.client.resetAndDestroy())
      .then(() => this.#served())
  }

  #served(): void {
    this.#seenBytes = this.client.bytesRead
    this.#waiting--
    if (this.#waiting === 0 && (this.#isUpstreamGone || this.#hasClientEnded)) this.client.destroySoon()
    if (!this.#isPaused || this.#waiting > 1) return
    this.#isPaused = false
    this.client.resume()
  }

  async #serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    if (this.#isUpstreamGone) this.client.destroySoon() // as unanswered as without us
    if (this.client.destroyed || this.#isUpstreamGone) return
    const decided = await decideRequest(req, this)
    if (this.client.destroyed) return
    if (decided.kind === 'page') sendPage(res, decided)
    else await forward(req, res, decided, this)
  }

  async #serveTunnel(req: IncomingMessage, head: Buffer): Promise<void> {
    const decided = await decideRequest(req, this)
    if (this.client.destroyed) return
    if (decided.kind === 'page') await this.#answer(req, decided)
    else await tunnel(req, head, decided, this, (one) => this.#responseTo(one))
  }

  async #answer(req: IncomingMessage, answer: Parameters<typeof sendPage>[1]): Promise<void> {
    const res = this.#responseTo(req)
    sendPage(res, { ...answer, isLast: true })
    await finished(res).catch(() => {})
  }

  /** For a request that the parser has let go of: the last of its connection. */
  #responseTo(req: IncomingMessage): ServerResponse {
    const res = new ServerResponse(req)
    res.sendDate = false
    res.shouldKeepAlive = false
    res.assignSocket(this.client)
    res.once('finish', () => this.client.destroySoon())
    return res
  }

  /** The parser cannot go on (`HPE_…`), or the socket has failed. */
  onClientError(error: Error & { readonly code?: string }): void {
    const isMalformed = error.code?.startsWith('HPE_') ?? false
    if (!isMalformed || !this.client.writable || this.#waiting > 0) {
      this.client.destroy(error)
      return
    }
    this.counters.malformed++
    const status = error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request'
    this.#end(status)
  }

  #end(status: string): void {
    this.client.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`)
    this.client.destroySoon()
  }

  /** Of a client that sends a head byte by byte; one that sends nothing is idle. */
  #checkHead(): void {
    const { bytesRead } = this.client
    if (this.#waiting > 0) return
    const isSlow = this.#seenBytes < 0 && bytesRead > 0
    if (isSlow) this.#end('408 Request Timeout')
    else if (bytesRead > this.#seenBytes) this.#seenBytes = -1
  }

  #onUpstreamClose(): void {
    this.#isUpstreamGone = true
    if (this.#waiting === 0) this.client.destroySoon()
  }
}
