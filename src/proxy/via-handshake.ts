import { EAGAIN, EINTR, errnoName } from '../sys/errno.ts'
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, type EventLoop, type EventTarget, type Watch } from '../sys/loop.ts'
import { setResetOnClose, takeSocketError } from '../sys/options.ts'
import { peekBytes, receive, transmit } from '../sys/socket.ts'
import type { ViaReason } from './record.ts'
import { type Conversation, MAX_ANSWER_BYTES, type Step } from './via-conversation.ts'

/** Told once, within begin() or later. */
export interface ViaOwner {
  /** Takes the watch and its descriptor back. `events`: what epoll has reported; edge-triggered, it does not come again. */
  onViaOpen(watch: Watch, events: number): void
  /** The connection is closed. `client-gone`: abandoned, with nothing more to say. */
  onViaFailed(reason: ViaReason | 'client-gone', why: string | undefined): void
}

/** Every answer is copied into it, and read before the next one is. */
const buffer = new Uint8Array(MAX_ANSWER_BYTES)
const MAX_STEPS = 8

/**
 * A conversation with a proxy on a connected upstream, before the relay has it. Bytes are looked at first (MSG_PEEK) and taken when
 * they are answered: those behind the proxy's last answer are the server's, and stay in the socket for the relay.
 */
export class ViaHandshake implements EventTarget {
  readonly #watch: Watch
  readonly #conversation: Conversation
  readonly #timeoutMs: number
  readonly #loop: EventLoop
  readonly #owner: ViaOwner
  #timer: NodeJS.Timeout | undefined
  #events: number
  #unsent: Uint8Array
  #steps = 0
  #settled = false

  /** Takes `watch`, of which `events` were reported. */
  constructor(
    watch: Watch,
    events: number,
    conversation: Conversation,
    timeoutMs: number,
    loop: EventLoop,
    owner: ViaOwner,
  ) {
    this.#watch = watch
    this.#events = events
    this.#conversation = conversation
    this.#timeoutMs = timeoutMs
    this.#loop = loop
    this.#owner = owner
    this.#unsent = conversation.opening
  }

  begin(): void {
    this.#watch.target = this
    const late = (): void => this.#fail('via-failed', `no answer in ${this.#timeoutMs} ms`)
    this.#timer = setTimeout(late, this.#timeoutMs)
    this.#goOn()
  }

  onEvents(events: number): void {
    this.#events |= events
    this.#goOn()
    // only now: an answer may have come before the reset
    if (this.#settled || (events & (EPOLLERR | EPOLLHUP)) === 0) return
    const errno = takeSocketError(this.#watch.fd)
    this.#fail('via-failed', errno === 0 ? 'it closed the connection' : errnoName(errno))
  }

  /** Nobody waits for the answer any more. */
  abandon(): void {
    this.#fail('client-gone', undefined)
  }

  /** Sends and reads until the other side has its turn, or all is said. */
  #goOn(): void {
    while (!this.#settled && this.#send()) {
      const count = peekBytes(this.#watch.fd, buffer, MAX_ANSWER_BYTES)
      const step = this.#conversation.next(buffer.subarray(0, Math.max(0, count)))
      if (step.kind === 'more') {
        this.#judge(count)
        return
      }
      this.#take(step)
    }
  }

  /** Whether more can come. `count`: what a look at the socket said. */
  #judge(count: number): void {
    if (count === 0) this.#fail('via-failed', 'it closed the connection')
    else if (count === MAX_ANSWER_BYTES) this.#fail('via-failed', `an answer of more than ${count} bytes`)
    else if (count < 0 && count !== -EAGAIN && count !== -EINTR) this.#fail('via-failed', errnoName(-count))
  }

  #take(step: Exclude<Step, { kind: 'more' }>): void {
    if (step.kind === 'refused' || step.kind === 'failed') {
      this.#fail(step.kind === 'refused' ? 'via-refused' : 'via-failed', step.why)
      return
    }
    if (step.used > 0) receive(this.#watch.fd, buffer, step.used)
    if (step.kind === 'open') {
      this.#settle()
      this.#owner.onViaOpen(this.#watch, this.#events | EPOLLIN | EPOLLOUT)
    } else if (++this.#steps > MAX_STEPS) {
      this.#fail('via-failed', 'it has no end')
    } else {
      this.#unsent = step.bytes
    }
  }

  /** Whether nothing is left to be sent. */
  #send(): boolean {
    if (this.#unsent.length === 0) return true
    const count = transmit(this.#watch.fd, this.#unsent, this.#unsent.length)
    if (count > 0) this.#unsent = this.#unsent.subarray(count)
    else if (count !== -EAGAIN && count !== -EINTR) this.#fail('via-failed', errnoName(-count))
    return this.#unsent.length === 0
  }

  #fail(reason: ViaReason | 'client-gone', why: string | undefined): void {
    if (this.#settled) return
    this.#settle()
    setResetOnClose(this.#watch.fd)
    this.#loop.close(this.#watch)
    this.#owner.onViaFailed(reason, why)
  }

  #settle(): void {
    this.#settled = true
    clearTimeout(this.#timer)
  }
}
