import { SyscallError } from './errno.ts'
import { ffi, lastErrno } from './ffi.ts'
import { FixedMemory } from './fixed-memory.ts'
import { EPOLLET, EPOLLIN, type EventLoop, type Watch } from './loop.ts'

const CLOCK_MONOTONIC = 1
const FLAGS = 0o4000 | 0o2000000 // TFD_NONBLOCK | TFD_CLOEXEC
// struct itimerspec: the interval's seconds and nanoseconds, then the value's (timerfd_create(2))
const SPEC_BYTES = 32
const SECONDS_AT = 16
const NANOSECONDS_AT = 24

/**
 * A timer of the loop that is as exact as the kernel's own (timerfd_create(2)): those of libuv's loop go by whole milliseconds. It
 * keeps the process alive until it is closed.
 */
export class FineTimer {
  readonly #loop: EventLoop
  readonly #watch: Watch
  readonly #spec = new FixedMemory(SPEC_BYTES)

  /** `onTime` is called once after each set(). */
  constructor(loop: EventLoop, onTime: () => void) {
    const fd = ffi.timerfdCreate(CLOCK_MONOTONIC, FLAGS)
    if (fd < 0) throw new SyscallError('timerfd_create', lastErrno(), 'CLOCK_MONOTONIC')
    this.#loop = loop
    // edge-triggered: each expiry wakes the loop once, and nobody has to read how often it expired
    this.#watch = loop.take(fd, EPOLLIN | EPOLLET, { onEvents: onTime })
  }

  /** Expires after `ms`, instead of what was set before; at once when that is not more than 0. */
  set(ms: number): void {
    const seconds = Math.max(0, Math.floor(ms / 1000))
    this.#spec.setSize(SECONDS_AT, seconds)
    this.#spec.setSize(NANOSECONDS_AT, Math.max(1, Math.floor((ms - seconds * 1000) * 1e6))) // 0 would switch it off
    if (ffi.timerfdSettime(this.#watch.fd, 0, this.#spec.bytes, null) < 0) {
      throw new SyscallError('timerfd_settime', lastErrno(), `${ms} ms`)
    }
  }

  close(): void {
    this.#loop.close(this.#watch)
  }
}
