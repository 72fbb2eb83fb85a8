import { EPOLLIN, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { receive, transmit } from '../sys/socket.ts'
import { HELLO_BYTES } from './client-hello.ts'
import { RESPONSE } from './http-responder.ts'
import { listenOn } from './responder.ts'

const received = Buffer.alloc(2 * HELLO_BYTES)

/**
 * Waits for a ClientHello for `name`, answers with what an HTTP client takes for a response, so that wrk can make the load, and closes. A
 * hello for another name, which has been routed wrongly, gets no answer, and wrk counts an error. `answers`: false leaves all waiting.
 * Returns what ends the listening.
 */
export function serveHello(loop: EventLoop, port: number, name: string, answers = true): () => void {
  return listenOn(loop, port, (fd) => HelloConnection.open(loop, fd, answers ? name : undefined))
}

class HelloConnection implements EventTarget {
  readonly #loop: EventLoop
  readonly #name: string | undefined
  #watch: Watch | undefined
  #count = 0
  #isNamed = false

  private constructor(loop: EventLoop, name: string | undefined) {
    this.#loop = loop
    this.#name = name
  }

  /** Takes the descriptor. */
  static open(loop: EventLoop, fd: number, name: string | undefined): void {
    const connection = new HelloConnection(loop, name)
    connection.#watch = loop.take(fd, EPOLLIN, connection)
  }

  onEvents(): void {
    const watch = this.#watch!
    const count = receive(watch.fd, received, received.length)
    this.#count += Math.max(0, count)
    // the name stands in the first segment
    this.#isNamed ||= this.#name !== undefined && received.subarray(0, count).includes(this.#name)
    if (count > 0 && (this.#count < HELLO_BYTES || this.#name === undefined)) return
    if (count > 0 && this.#count === HELLO_BYTES && this.#isNamed)
      transmit(watch.fd, RESPONSE.close, RESPONSE.close.length)
    this.#loop.close(watch)
  }
}
