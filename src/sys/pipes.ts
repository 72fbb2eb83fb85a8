import { ffi } from './ffi.ts'
import { closeFd } from './socket.ts'

const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const F_SETPIPE_SZ = 1031
const DEFAULT_PIPE_BYTES = 65_536 // pipe(7)

/** A pipe for splice(2). It is empty whenever it lies in the pool. */
export interface Pipe {
  readonly readFd: number
  readonly writeFd: number
  readonly capacity: number
}

/**
 * Pipes that flows borrow while they splice. A flow owns a pipe only while bulk data is moving.
 * `limit` bounds the pipes in existence (each is two descriptors and up to `capacity` bytes of kernel memory);
 * beyond it `take()` answers undefined, and the flow copies instead.
 */
export class PipePool {
  readonly #idle: Pipe[] = []
  readonly #limit: number
  readonly #keepIdle: number
  readonly #capacity: number
  #open = 0

  constructor(options: { limit: number; keepIdle: number; capacity: number }) {
    this.#limit = options.limit
    this.#keepIdle = options.keepIdle
    this.#capacity = options.capacity
  }

  /** Pipes in existence, lent or idle. */
  get open(): number {
    return this.#open
  }

  /** An empty pipe, or undefined when the limit or the process's descriptors are used up. */
  take(): Pipe | undefined {
    const idle = this.#idle.pop()
    if (idle !== undefined) return idle
    if (this.#open >= this.#limit) return undefined
    const fds = new Int32Array(2)
    if (ffi.pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return undefined
    this.#open++
    // beyond fs.pipe-user-pages-soft an ordinary user gets a smaller pipe, and growing it fails: use what there is
    const capacity = ffi.fcntl(fds[1]!, F_SETPIPE_SZ, this.#capacity)
    return { readFd: fds[0]!, writeFd: fds[1]!, capacity: capacity > 0 ? capacity : DEFAULT_PIPE_BYTES }
  }

  /** Takes an empty pipe back. */
  give(pipe: Pipe): void {
    if (this.#idle.length < this.#keepIdle) this.#idle.push(pipe)
    else this.discard(pipe)
  }

  /** Closes a pipe that still holds bytes. */
  discard(pipe: Pipe): void {
    closeFd(pipe.readFd)
    closeFd(pipe.writeFd)
    this.#open--
  }

  /** Closes the idle pipes; lent ones are closed when they come back. */
  close(): void {
    for (const pipe of this.#idle.splice(0)) this.discard(pipe)
  }
}
