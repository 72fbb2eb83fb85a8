import { EAGAIN, EINTR, EPIPE } from '../sys/errno.ts'
import { takeSocketError } from '../sys/options.ts'
import type { Pipe } from '../sys/pipes.ts'
import { finishWriting, spliceBytes, transmit } from '../sys/socket.ts'
import type { DirectionOwner } from './direction-owner.ts'
import { lossOf, otherPeer, type Peer } from './reasons.ts'

/**
 * The half of a direction that faces its receiver: what was taken from the sender and is not sent yet, copied or in a pipe, and the FIN behind
 * it. A part of Direction rather than an object of its own, since there are two for each flow.
 */
export class ReceiverSide {
  readonly relay: DirectionOwner
  readonly from: number
  readonly to: number
  /** Whose bytes they are. */
  readonly sender: Peer
  /** Copied. */
  waiting: Uint8Array | undefined
  pipe: Pipe | undefined
  /** Bytes in the pipe. */
  piped = 0
  /** The FIN was passed on: nothing more goes this way. */
  finished = false

  constructor(relay: DirectionOwner, from: number, to: number, sender: Peer) {
    this.relay = relay
    this.from = from
    this.to = to
    this.sender = sender
  }

  get hasUnsent(): boolean {
    return this.piped > 0 || this.waiting !== undefined
  }

  /** Writes what waits; true when nothing waits any more. */
  flush(): boolean {
    while (this.piped > 0) {
      const count = spliceBytes(this.pipe!.readFd, this.to, this.piped)
      if (count > 0) {
        this.piped -= count
        this.relay.lastActiveAt = this.relay.resources.loop.now
      } else if (!this.#blocked(count)) return false
    }
    while (this.waiting !== undefined) {
      const count = transmit(this.to, this.waiting, this.waiting.length)
      if (count >= 0) {
        this.keep(count === this.waiting.length ? undefined : this.waiting.subarray(count))
        this.relay.lastActiveAt = this.relay.resources.loop.now
      } else if (!this.#blocked(count)) return false
    }
    return true
  }

  /** True when a failed write is to be tried again at once; false when it must wait, or the relay has ended. */
  #blocked(result: number): boolean {
    if (result === -EINTR) return true
    if (result !== -EAGAIN) this.fail(-result, otherPeer(this.sender))
    return false
  }

  /** Writes the first `count` of `bytes`, and keeps a copy of what is not taken. `isLast`: nothing follows but a FIN, at once. */
  write(bytes: Uint8Array, count: number, isLast: boolean): void {
    const sent = transmit(this.to, bytes, count, isLast)
    if (sent === count) return
    if (sent >= 0 || sent === -EAGAIN || sent === -EINTR) this.keep(bytes.slice(Math.max(0, sent), count))
    else this.fail(-sent, otherPeer(this.sender))
  }

  /** Takes `bytes` in place of what waited; undefined: nothing does. */
  keep(bytes: Uint8Array | undefined): void {
    this.relay.resources.waitingBytes += (bytes?.length ?? 0) - (this.waiting?.length ?? 0)
    this.waiting = bytes
  }

  passFin(): void {
    if (this.finished) return
    this.finished = true
    this.returnPipe()
    // the relay closes both sockets when this was the last direction, which sends the FIN as well
    if (!this.relay.isLastDirection()) finishWriting(this.to)
    this.relay.onDirectionFinished()
  }

  /** It is empty. */
  returnPipe(): void {
    if (this.pipe === undefined) return
    this.relay.resources.pipes.give(this.pipe)
    this.pipe = undefined
  }

  /** Gives back all of it. Called once, when the relay ends. */
  release(): void {
    if (this.pipe !== undefined) {
      if (this.piped > 0) this.relay.resources.pipes.discard(this.pipe)
      else this.relay.resources.pipes.give(this.pipe)
      this.pipe = undefined
    }
    this.keep(undefined)
  }

  /** Ends the relay: `errno` is what `peer`'s socket said. */
  fail(errno: number, peer: Peer): void {
    let cause = errno
    // EPIPE says only that the socket is dead; its pending error, if any is left, says why
    if (errno === EPIPE && peer !== this.sender) cause = takeSocketError(this.to) || errno
    this.relay.end(lossOf(cause, peer))
  }
}
