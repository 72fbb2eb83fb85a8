import { EAGAIN, EINTR } from '../sys/errno.ts'
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, type EventTarget } from '../sys/loop.ts'
import { takeSocketError } from '../sys/options.ts'
import { type FirstBytes, receive, spliceBytes, transmit } from '../sys/socket.ts'
import type { ByteBucket } from './byte-bucket.ts'
import type { Messenger } from './message-batch.ts'
import { Pace } from './pace.ts'
import { otherPeer } from './reasons.ts'
import { ReceiverSide } from './receiver-side.ts'

/** The most that one read takes: what a socket delivers in one go at gigabit rates, and the size of a default pipe. */
const COPY_BYTES = 65_536
/** Reads in a row that fill the buffer before a direction is taken for bulk and gets a pipe. */
const FULL_READS_TO_SPLICE = 2
/** Splices in a row that move little before a direction goes back to copying, which costs one call less per message. */
const SMALL_SPLICES_TO_COPY = 8
const SMALL_SPLICE_BYTES = 8_192
/** Reads per turn; then the other flows have theirs. With fewer, splices move less each: see docs/performance.md. */
const ROUNDS_PER_TURN = 16
/** What a bulk flow moves before those that have little to move get their events: 150 µs at 14 Gbit/s, for a call of 1 µs. */
const BYTES_BETWEEN_EVENTS = 262_144

/** Every relay of the thread reads into this one; what cannot be written at once is copied out of it. */
const copyBuffer = new Uint8Array(COPY_BYTES)

/**
 * One direction of a relay, and the target of its sender's events: what that socket can take comes from the opposite direction.
 * Edge-triggered: `#readable` remembers that the sender may have bytes for us which we have not taken yet. Nothing is read while bytes wait
 * for the receiver, so at most one read or one pipe waits, and the sender feels it.
 */
export class Direction extends ReceiverSide implements EventTarget, Messenger {
  /** Set once, before the first event. */
  opposite: Direction | undefined
  #readable = false
  #finSeen = false
  #eof = false
  #urgent = false
  #splicing = false
  /** Reads in a row that filled the buffer; while splicing, splices in a row that moved little. */
  #inARow = 0
  /** It goes on without an event. */
  #resumes = false
  /** Its message is moved with those of others. */
  #together = false
  #sendErrno = 0
  /** Within its own turn, in which others get their events: its own are only noted. */
  #pumping = false
  /** Nothing is read before somebody has looked at it. */
  #guard: ((events: number) => void) | undefined
  /** Undefined: it reads what there is. */
  #pace: Pace | undefined
  /** The sender is dead, which is told when it has had its turns. */
  #failed = false
  /** Bytes taken from the sender. */
  bytes = 0

  /** Counts bytes that were read before the relay began; what of them is not sent yet goes out first. */
  begin(first: FirstBytes): void {
    this.bytes += first.bytes.length
    if (first.sent < first.bytes.length) this.keep(first.bytes.slice(first.sent))
  }

  /** Of the sender's socket. */
  onEvents(events: number): void {
    if ((events & EPOLLOUT) !== 0) this.opposite!.#onWritable()
    if (this.relay.ended) return
    if ((events & EPOLLPRI) !== 0) this.#onUrgent()
    const failed = (events & EPOLLERR) !== 0
    // on a reset, what came before it is read first, and then the error: it must never be taken for a FIN
    if (failed || (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) !== 0) {
      this.#onReadable(!failed && (events & EPOLLRDHUP) !== 0, failed)
    }
    if (failed) this.#onFailed()
    if (!this.relay.ended) this.#guard?.(events)
  }

  /** Reads nothing until passOn(): what the sender's socket reports goes to `guard`, too. */
  holdFor(guard: (events: number) => void): void {
    this.#guard = guard
  }

  passOn(): void {
    this.#guard = undefined
    if (!this.relay.ended && this.#readable) this.#pump()
  }

  /** From now on it reads no more than `bucket` has; undefined: what there is. */
  slowTo(bucket: ByteBucket | undefined): void {
    const waited = this.isPaced
    this.#pace?.leave()
    this.#pace = bucket && new Pace(bucket, () => this.#onTurn())
    if (waited) this.#pump()
  }

  /** It has something to read, and waits for its turn. */
  get isPaced(): boolean {
    return this.#pace?.waits === true
  }

  /** The sender has bytes, a FIN (`finSeen`) or an error (`failed`) for us. */
  #onReadable(finSeen: boolean, failed: boolean): void {
    this.#readable = true
    if (finSeen) this.#finSeen = true
    if (this.#guard !== undefined || this.isPaced) return
    if (this.hasUnsent || this.#resumes || this.#pumping || this.#together) return
    if (failed || this.#urgent) this.#pump()
    else if (this.#splicing || this.#pace !== undefined) this.#resumeUnhurried()
    else {
      this.#together = true
      this.relay.resources.messages.add(this)
    }
  }

  /** The receiver has room again. */
  #onWritable(): void {
    if (!this.hasUnsent || this.#resumes || this.#pumping) return
    if (this.#splicing) this.#resumeUnhurried()
    else this.#pump()
  }

  /** Urgent data is about: a read ends at its mark and splice cannot pass it, so copy, and read until EAGAIN. */
  #onUrgent(): void {
    this.#urgent = true
    this.#splicing = false
    this.#readable = true
  }

  /** The sender's socket reports an error that no read has brought to light yet; what came before it goes on in its turns. */
  #onFailed(): void {
    this.#failed = this.isPaced
    if (this.#failed || this.relay.ended) return
    const errno = takeSocketError(this.from)
    if (errno !== 0) this.fail(errno, this.sender)
  }

  /** The sender is dead: passes on the bytes it had sent before, as far as the receiver takes them now. No FIN. */
  passRest(): void {
    while (this.flush()) {
      const count = receive(this.from, copyBuffer, this.#room(COPY_BYTES))
      if (count <= 0) return
      this.#count(count)
      if (transmit(this.to, copyBuffer, count) < count) return
    }
  }

  /** Gives back what the direction holds. Called once, when the relay ends. */
  override release(): void {
    this.#pace?.leave()
    super.release()
  }

  #pump(): void {
    let othersAt = this.bytes
    for (let round = 0; ; round++) {
      if (!this.flush()) return
      if (this.#pumping && this.bytes - othersAt >= BYTES_BETWEEN_EVENTS) {
        othersAt = this.bytes
        this.relay.resources.loop.deliver()
        if (this.relay.ended) return
      }
      if (this.#eof || !this.#readable) {
        if (this.#eof) this.passFin()
        else this.returnPipe()
        return
      }
      if (round >= ROUNDS_PER_TURN) {
        this.#resumes = true
        this.relay.resources.loop.later(() => this.#resume())
        return
      }
      const room = this.#room(Number.MAX_SAFE_INTEGER)
      if (room === 0) {
        this.returnPipe()
        return
      }
      if (this.#splicing) this.#spliceIn(room)
      else this.#copy(Math.min(room, COPY_BYTES))
      if (this.relay.ended) return
    }
  }

  get ended(): boolean {
    return this.relay.ended
  }

  get isLast(): boolean {
    return this.#eof
  }

  moveAlone(): void {
    this.#together = false
    this.#pump()
  }

  onReceived(result: number, room: number): number {
    if (result > 0) this.#note(result, room)
    else this.#endOfInput(result)
    return Math.max(0, result)
  }

  onSent(result: number, message: Uint8Array): void {
    if (result >= 0 || result === -EAGAIN || result === -EINTR) this.keep(message.slice(Math.max(0, result)))
    else this.#sendErrno = -result
  }

  onMoved(): void {
    this.#together = false
    if (this.#sendErrno !== 0) this.fail(this.#sendErrno, otherPeer(this.sender))
    else this.#pump()
  }

  /** How much may be read, of `most`; 0: it goes on when it is its turn. */
  #room(most: number): number {
    return this.#pace === undefined ? most : this.#pace.room(most)
  }

  #count(bytes: number): void {
    this.bytes += bytes
    this.#pace?.spend(bytes)
  }

  #copy(room: number): void {
    const count = receive(this.from, copyBuffer, room)
    if (count <= 0) this.#endOfInput(count)
    else {
      this.#note(count, room)
      this.write(copyBuffer, count, this.#eof)
    }
  }

  /** Notes that a read took `count` bytes where `room` were possible. */
  #note(count: number, room: number): void {
    this.#count(count)
    this.relay.lastActiveAt = this.relay.resources.loop.now
    if (count < room && !this.#urgent) {
      // a short read has drained the socket (epoll(7)), and nothing comes after a FIN
      this.#readable = false
      if (this.#finSeen) this.#eof = true
      this.#inARow = 0
    } else if (++this.#inARow >= FULL_READS_TO_SPLICE && !this.#urgent) {
      this.#splicing = true
      this.#inARow = 0
    }
  }

  #spliceIn(room: number): void {
    this.pipe ??= this.relay.resources.pipes.take()
    if (this.pipe === undefined) {
      this.#stopSplicing()
      return
    }
    const count = spliceBytes(this.from, this.pipe.writeFd, Math.min(room, this.pipe.capacity))
    if (count === 0) {
      this.#stopSplicing() // a FIN, or an urgent mark with a FIN behind it (tcp_read_sock, net/ipv4/tcp.c): recv knows
      return
    }
    if (count < 0) {
      this.#endOfInput(count)
      return
    }
    this.piped = count
    this.#count(count)
    this.relay.lastActiveAt = this.relay.resources.loop.now
    if (count >= SMALL_SPLICE_BYTES) this.#inARow = 0
    else if (++this.#inARow >= SMALL_SPLICES_TO_COPY) this.#stopSplicing()
  }

  /** Goes back to copying; what is in the pipe is flushed before the next read. */
  #stopSplicing(): void {
    this.#splicing = false
    this.#inARow = 0
  }

  /** `result`: 0 for FIN, or a negative errno of a read. */
  #endOfInput(result: number): void {
    if (result === 0) this.#eof = true
    else if (result === -EAGAIN) this.#readable = false
    else if (result !== -EINTR) this.fail(-result, this.sender)
  }

  /** Bulk goes behind what is small. */
  #resumeUnhurried(): void {
    this.#resumes = true
    this.relay.resources.loop.unhurried(() => this.#resume())
  }

  #onTurn(): void {
    this.#resume()
    if (this.#failed) this.#onFailed()
  }

  #resume(): void {
    this.#resumes = false
    if (this.relay.ended) return
    this.#pumping = true
    this.#pump()
    this.#pumping = false
  }
}
