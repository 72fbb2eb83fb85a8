import { Agent } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { HandledFlow } from '../../proxy/app.ts'

/**
 * The one upstream connection of a client's connection, opened with the first request that goes on. Its end is the client's end: a client
 * sees when its server closes, and whatever it had sent by then is as unanswered as without Limpid.
 */
export class UpstreamAgent extends Agent {
  readonly #flow: HandledFlow
  readonly #onClose: () => void
  #dialled: Promise<Socket> | undefined

  constructor(flow: HandledFlow, onClose: () => void) {
    super({ keepAlive: true, maxSockets: 1 })
    this.#flow = flow
    this.#onClose = onClose
  }

  createConnection(_options: unknown, done: (error: Error | null, socket?: Socket) => void): undefined {
    if (this.#dialled !== undefined) {
      done(new Error('its connection is over'))
      return
    }
    this.#dialled = this.#flow.dial()
    this.#dialled.then(
      (socket) => {
        socket.once('close', this.#onClose)
        socket.once('end', this.#onClose) // half-open: it takes no more requests, or does not answer them
        done(null, socket)
      },
      (error: Error) => {
        this.#dialled = undefined // the next request may try again
        done(error)
      },
    )
  }

  /** Its timeouts are the flow's. */
  keepSocketAlive(_socket: Duplex): boolean {
    return true
  }
}
