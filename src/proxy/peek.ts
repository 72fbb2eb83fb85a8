import type { PeekConfig } from '../config/policy-types.ts'
import { inspectStream } from '../inspect/stream.ts'
import { type Finding, UNKNOWN } from '../policy/facts.ts'
import { EAGAIN, EINTR } from '../sys/errno.ts'
import { EPOLLIN, EPOLLRDHUP } from '../sys/loop.ts'
import { peekBytes } from '../sys/socket.ts'

/** More than any hello that a server accepts: several records of a TLS ClientHello, or an HTTP head. */
const PEEK_BYTES = 65_536

/** Why a flow whose first bytes were asked about must not go on: a server might understand them differently. */
export type PeekRefusal =
  /** They break the rules of their protocol, or are too long. */
  | 'malformed'
  /** They were not complete in time. */
  | 'hello-timeout'

export interface PeekOwner {
  /** This or onPeekRefused() once; not any more after stop(). `isSilent`: the client has said nothing until now. */
  onPeeked(finding: Finding, isSilent: boolean): void
  onPeekRefused(why: PeekRefusal): void
}

/** Every peek of the thread copies into it. */
const buffer = new Uint8Array(PEEK_BYTES)

/**
 * Looks at the first bytes of a client's socket without taking them (MSG_PEEK, recv(2)), as they come, until they say what they are. A
 * client that says nothing waits for its server to speak first: then nothing is known, and the flow goes on.
 */
export class Peek {
  readonly #fd: number
  readonly #config: PeekConfig
  readonly #owner: PeekOwner
  #timer: NodeJS.Timeout | undefined
  #seen = 0

  constructor(fd: number, config: PeekConfig, owner: PeekOwner) {
    this.#fd = fd
    this.#config = config
    this.#owner = owner
  }

  /** Looks at once: under load the first bytes have come before their flow was accepted, and neither a timer nor an event is needed. */
  begin(): void {
    if (this.#look() || this.#config.silenceMs === 0) return
    this.#timer = setTimeout(() => {
      // when this process had no turn for that long, the bytes may be there and their event is not
      if (!this.#look()) this.#found(UNKNOWN, true)
    }, this.#config.silenceMs)
  }

  #look(): boolean {
    const count = peekBytes(this.#fd, buffer, PEEK_BYTES)
    if (count > 0) this.#judge(buffer.subarray(0, count), false)
    return count > 0
  }

  /** Of the client's socket. */
  onEvents(events: number): void {
    if ((events & (EPOLLIN | EPOLLRDHUP)) === 0) return
    const count = peekBytes(this.#fd, buffer, PEEK_BYTES)
    if (count === -EAGAIN || count === -EINTR) return
    // an error is the relay's to find
    if (count <= 0) this.#found(UNKNOWN)
    else this.#judge(buffer.subarray(0, count), (events & EPOLLRDHUP) !== 0)
  }

  /** `isAll`: a FIN is behind them. */
  #judge(bytes: Uint8Array, isAll: boolean): void {
    const probed = inspectStream(bytes)
    if (probed.kind === 'match') this.#found(probed.finding)
    else if (probed.kind === 'no') this.#found(UNKNOWN)
    else if (probed.kind === 'malformed') this.#refuse('malformed')
    else if (isAll || bytes.length === PEEK_BYTES) this.#refuse('malformed')
    else if (this.#seen === 0) {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.#refuse('hello-timeout'), this.#config.helloMs)
    }
    this.#seen = bytes.length
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #found(finding: Finding, isSilent = false): void {
    this.stop()
    this.#owner.onPeeked(finding, isSilent)
  }

  #refuse(why: PeekRefusal): void {
    this.stop()
    this.#owner.onPeekRefused(why)
  }
}

/** `unclear`: they do not tell, or not yet. */
export type Glimpse = Finding | 'nothing' | 'unclear'

/** What the first bytes that have come until now are. Waits for nothing. `fd`: as for Peek. */
export function peekNow(fd: number): Glimpse {
  const count = peekBytes(fd, buffer, PEEK_BYTES)
  return count > 0 ? findingIn(buffer.subarray(0, count)) : 'nothing'
}

/** The same of bytes that were taken already. */
export function findingIn(bytes: Uint8Array): Glimpse {
  const probed = inspectStream(bytes)
  if (probed.kind === 'match') return probed.finding
  return probed.kind === 'no' ? UNKNOWN : 'unclear'
}
