import { EPOLLIN, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { receive, transmit } from '../sys/socket.ts'
import { listenOn } from './responder.ts'

const BODY = 'x'.repeat(128)
const KEEP = responseWith('')
const CLOSE = responseWith('Connection: close\r\n')
const REQUEST_BYTES = 4096
const END_OF_HEADERS = 0x0d0a0d0a // \r\n\r\n
const WANTS_CLOSE = 'Connection: close'

const request = Buffer.alloc(REQUEST_BYTES)

/** A response, with and without `Connection: close`. */
export const RESPONSE = { keep: KEEP, close: CLOSE } as const
/** Its bytes. */
export const RESPONSE_BYTES = { keep: KEEP.length, close: CLOSE.length } as const

function responseWith(header: string): Buffer {
  return Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${BODY.length}\r\n${header}\r\n${BODY}`, 'latin1')
}

/**
 * Answers every HTTP request with 128 bytes, and nothing else: two system calls a request, so that it is not what a
 * benchmark measures. A request that does not come in one piece is cut off, which the client counts as an error. Returns what
 * ends the listening.
 */
export function serveHttp(loop: EventLoop, port: number): () => void {
  return listenOn(loop, port, (fd) => HttpConnection.open(loop, fd))
}

class HttpConnection implements EventTarget {
  readonly #loop: EventLoop
  #watch: Watch | undefined

  private constructor(loop: EventLoop) {
    this.#loop = loop
  }

  /** Takes the descriptor. */
  static open(loop: EventLoop, fd: number): void {
    const connection = new HttpConnection(loop)
    connection.#watch = loop.take(fd, EPOLLIN, connection)
  }

  onEvents(): void {
    const watch = this.#watch!
    const count = receive(watch.fd, request, REQUEST_BYTES)
    if (count < 4 || request.readUInt32BE(count - 4) !== END_OF_HEADERS) {
      this.#loop.close(watch)
      return
    }
    const isLast = request.toString('latin1', 0, count).includes(WANTS_CLOSE)
    const response = isLast ? CLOSE : KEEP
    if (transmit(watch.fd, response, response.length) !== response.length || isLast) this.#loop.close(watch)
  }
}
