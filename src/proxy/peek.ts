import type { PeekConfig } from '../config/policy-types.ts'
import { inspectStream } from '../inspect/stream.ts'
import { type Finding, UNKNOWN } from '../policy/facts.ts'
import { EAGAIN, EINTR } from '../sys/errno.ts'
import { EPOLLIN, EPOLLRDHUP } from '../sys/loop.ts'
import { type Looker, lookNow, PEEK_BYTES, type PeekBatch } from './peek-batch.ts'

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

/**
 * Looks at the first bytes of a client's socket without taking them, as they come, until they say what they are. A client that says nothing
 * waits for its server to speak first: then nothing is known, and the flow goes on.
 */
export class Peek implements Looker {
  readonly fd: number
  readonly #config: PeekConfig
  readonly #batch: PeekBatch
  readonly #owner: PeekOwner
  #timer: NodeJS.Timeout | undefined
  #seen = 0
  isStopped = false
  /** It is about to look. */
  #isDue = false
  /** This is its first look, for which it has not waited. */
  #isFirst = false
  /** What the socket has reported. */
  #events = 0

  constructor(fd: number, config: PeekConfig, batch: PeekBatch, owner: PeekOwner) {
    this.fd = fd
    this.#config = config
    this.#batch = batch
    this.#owner = owner
  }

  /** Looks without waiting for an event: under load the first bytes have come before their flow was accepted, and no timer is needed. */
  begin(): void {
    this.#isFirst = true
    this.#lookSoon()
  }

  /** Of the client's socket. */
  onEvents(events: number): void {
    if ((events & (EPOLLIN | EPOLLRDHUP)) === 0) return
    this.#events |= events
    this.#lookSoon()
  }

  #lookSoon(): void {
    if (this.#isDue) return
    this.#isDue = true
    this.#batch.add(this)
  }

  onLook(bytes: Uint8Array | number): void {
    const isFirst = this.#isFirst
    const events = this.#events
    this.#isDue = false
    this.#isFirst = false
    // a FIN behind what was seen: nothing more comes; an error is the relay's to find
    if (typeof bytes !== 'number') this.#judge(bytes, (events & EPOLLRDHUP) !== 0)
    else if (bytes !== -EAGAIN && bytes !== -EINTR && events !== 0) this.#found(UNKNOWN)
    else if (isFirst && this.#config.silenceMs > 0) this.#awaitEvent(this.#config.silenceMs)
  }

  #awaitEvent(silenceMs: number): void {
    this.#timer = setTimeout(() => {
      // when this process had no turn for that long, the bytes may be there and their event is not
      const bytes = lookNow(this.fd)
      if (typeof bytes !== 'number') this.#judge(bytes, false)
      else this.#found(UNKNOWN, true)
    }, silenceMs)
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
    this.isStopped = true
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
  const bytes = lookNow(fd)
  return typeof bytes === 'number' ? 'nothing' : findingIn(bytes)
}

/** The same of bytes that were taken already. */
export function findingIn(bytes: Uint8Array): Glimpse {
  const probed = inspectStream(bytes)
  if (probed.kind === 'match') return probed.finding
  return probed.kind === 'no' ? UNKNOWN : 'unclear'
}
