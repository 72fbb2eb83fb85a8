import { EAGAIN } from '../sys/errno.ts'
import { EPOLLOUT, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { transmit } from '../sys/socket.ts'
import { bulkPattern } from './pattern.ts'
import { listenOn } from './responder.ts'

/** Given to the kernel at once, then the next connection has its turn: else whoever reads as fast as we send would keep us. */
const PIECE_BYTES = 262_144

const pattern = bulkPattern()

/** Sends the pattern without end to whoever connects. Returns what ends the listening. */
export function serveBulk(loop: EventLoop, port: number): () => void {
  return listenOn(loop, port, (fd) => BulkConnection.open(loop, fd))
}

class BulkConnection implements EventTarget {
  readonly #loop: EventLoop
  #watch: Watch | undefined
  #at = 0

  private constructor(loop: EventLoop) {
    this.#loop = loop
  }

  /** Takes the descriptor. */
  static open(loop: EventLoop, fd: number): void {
    const connection = new BulkConnection(loop)
    connection.#watch = loop.take(fd, EPOLLOUT, connection)
  }

  onEvents(): void {
    const watch = this.#watch!
    const piece = pattern.subarray(this.#at, this.#at + PIECE_BYTES)
    const sent = transmit(watch.fd, piece, piece.length)
    if (sent >= 0) this.#at = (this.#at + sent) % pattern.length
    else if (sent !== -EAGAIN) this.#loop.close(watch) // the client leaves in the middle: that is how a transfer ends
  }
}
