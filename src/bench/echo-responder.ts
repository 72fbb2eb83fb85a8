import { EAGAIN } from '../sys/errno.ts'
import { EPOLLIN, EPOLLOUT, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { receive, transmit } from '../sys/socket.ts'
import { listenOn } from './responder.ts'

const READ_BYTES = 65_536

const received = Buffer.alloc(READ_BYTES)

/** Sends back what comes: two system calls a message, so that it is not what a benchmark measures. Returns what ends the listening. */
export function serveEcho(loop: EventLoop, port: number): () => void {
  return listenOn(loop, port, (fd) => EchoConnection.open(loop, fd))
}

class EchoConnection implements EventTarget {
  readonly #loop: EventLoop
  #watch: Watch | undefined
  /** What the kernel has not taken yet; nothing is read meanwhile. */
  #waiting: Buffer | undefined

  private constructor(loop: EventLoop) {
    this.#loop = loop
  }

  /** Takes the descriptor. */
  static open(loop: EventLoop, fd: number): void {
    const connection = new EchoConnection(loop)
    connection.#watch = loop.take(fd, EPOLLIN, connection)
  }

  onEvents(): void {
    const watch = this.#watch!
    if (this.#waiting !== undefined) {
      this.#send(this.#waiting)
      return
    }
    const count = receive(watch.fd, received, READ_BYTES)
    if (count > 0) this.#send(received.subarray(0, count))
    else if (count !== -EAGAIN) this.#loop.close(watch)
  }

  #send(bytes: Buffer): void {
    const watch = this.#watch!
    const sent = transmit(watch.fd, bytes, bytes.length)
    if (sent < 0 && sent !== -EAGAIN) {
      this.#loop.close(watch)
      return
    }
    const rest = bytes.subarray(Math.max(0, sent))
    const waited = this.#waiting !== undefined
    this.#waiting = rest.length === 0 ? undefined : waited ? rest : Buffer.from(rest)
    if (waited !== (this.#waiting !== undefined)) this.#loop.modify(watch, waited ? EPOLLIN : EPOLLOUT)
  }
}
