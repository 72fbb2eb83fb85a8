import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { MAX_HEAD_BYTES } from '../../inspect/http-grammar.ts'
import type { App, HandledFlow, StreamApp } from '../../proxy/app.ts'
import type { FlowHooks } from '../../proxy/flow-hooks.ts'
import { HttpConnection } from './connection.ts'

export interface HttpCounters {
  requests: number
  /** A rule turned it away. */
  refused: number
  /** `onHttpRequest` did, or failed. */
  refusedByHook: number
  /** It would have had to go another way than its connection. */
  misdirected: number
  /** No server should get it. */
  malformed: number
  /** There was no upstream, or no answer of it. */
  unanswered: number
  upgrades: number
}

/** HTTP/1, request by request: each is decided by the policy and by `onHttpRequest`, not only the first of a connection. */
export class HttpApp implements App {
  readonly streams: StreamApp
  readonly #counters: HttpCounters = {
    requests: 0,
    refused: 0,
    refusedByHook: 0,
    misdirected: 0,
    malformed: 0,
    unanswered: 0,
    upgrades: 0,
  }
  readonly #connections = new WeakMap<Socket, HttpConnection>()
  readonly #server: Server

  constructor(hooks: FlowHooks | undefined) {
    this.#server = this.#makeServer()
    this.streams = {
      serve: async (client: Socket, flow: HandledFlow) => {
        const connection = new HttpConnection(client, flow, { hooks, counters: this.#counters })
        this.#connections.set(client, connection)
        this.#server.emit('connection', client)
        await connection.run()
      },
    }
  }

  /** It never listens: it reads what it is given. */
  #makeServer(): Server {
    const server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      insecureHTTPParser: false,
      requireHostHeader: false, // asked with all the rest, for one answer
      // flows have timeouts of their own, which its timers would cut short
      keepAliveTimeout: 0,
      headersTimeout: 0,
      requestTimeout: 0,
    })
    server.maxHeadersCount = 0 // it would leave out those beyond, which the upstream then read; they are counted with all the rest
    Object.assign(server, { httpAllowHalfOpen: true }) // lib/_http_server.js of Node: a client that has sent FIN still gets its answer
    const take = (req: IncomingMessage, res: ServerResponse): void => this.#of(req)?.take(req, res)
    server.on('request', take)
    server.on('checkContinue', take) // the upstream says whether it wants the body
    server.on('checkExpectation', take)
    server.on('upgrade', (req, _socket, head) => this.#of(req)?.takeUpgrade(req, head))
    server.on('connect', (req, _socket, head) => this.#of(req)?.takeUpgrade(req, head))
    server.on('clientError', (error, socket) => this.#connections.get(socket as Socket)?.onClientError(error))
    return server
  }

  #of({ socket }: IncomingMessage): HttpConnection | undefined {
    return this.#connections.get(socket)
  }

  stats(): Readonly<Record<string, number>> {
    return { ...this.#counters }
  }
}
