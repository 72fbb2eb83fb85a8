import { SyscallError } from './errno.ts'
import { ffi, lastErrno, type PollHandle, pollReadable } from './ffi.ts'
import { setResetOnClose } from './options.ts'
import { Ring } from './ring.ts'
import { closeFd } from './socket.ts'
import { type Slot, WatchTable } from './watch-table.ts'

// sys/epoll.h
export const EPOLLIN = 0x1
export const EPOLLPRI = 0x2
export const EPOLLOUT = 0x4
export const EPOLLERR = 0x8
export const EPOLLHUP = 0x10
export const EPOLLRDHUP = 0x2000
export const EPOLLET = 0x8000_0000

const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLL_CTL_MOD = 3
const EPOLL_CLOEXEC = 0o2000000

const BATCH = 256
const RING_CALLS = 256 // at a time
const STAGES_PER_TURN = 4 // of work behind events
const BATCHES_PER_TURN = 4 // then timers, promises and other handles of libuv's loop have their turn

// struct epoll_event is packed on x86-64 only (linux/eventpoll.h): u32 events, then u64 data
const WORDS = process.arch === 'x64' ? 3 : 4
const DATA_AT = WORDS - 2

/** Receives the events of one watched descriptor. */
export interface EventTarget {
  /** `events`: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR, EPOLLHUP, or'ed. Must not throw for a peer's misbehaviour. */
  onEvents(events: number): void
}

/** A descriptor in the epoll set. `target` may be replaced at any time; it gets all events from then on. */
export interface Watch {
  readonly fd: number
  target: EventTarget
}

/**
 * An epoll set inside libuv's loop: its descriptor is watched by libuv, and when it becomes readable the set is drained
 * with `epoll_wait(…, 0)` in batches. It keeps the process alive while anything is watched, and holds no descriptor
 * when nothing is.
 */
export class EventLoop {
  #epollFd = -1
  #poll: PollHandle | undefined
  readonly #watches = new WatchTable()
  readonly #event = new Uint32Array(WORDS)
  readonly #events = new Uint32Array(WORDS * BATCH)
  #closing = false
  #again: (() => void)[] = []
  #againScheduled = false
  #draining = false
  #afterEvents: (() => void)[] = []
  #unhurried: (() => void)[] = []
  /** `null`: the kernel has none for us. */
  #ring: Ring | undefined | null
  #mayHaveRing = true
  #closings: number[] = []
  /** Monotonic milliseconds, read once per batch of events. */
  now = performance.now()

  /** Watches `fd` for `events` (or EPOLLET in). The descriptor stays the caller's; `remove` before closing it. */
  add(fd: number, events: number, target: EventTarget): Watch {
    if (this.#epollFd < 0) this.#open()
    const slot = this.#watches.add(fd, target)
    try {
      this.#control(EPOLL_CTL_ADD, slot, events)
    } catch (error) {
      this.#forget(slot)
      throw error
    }
    return slot
  }

  /** As add(), by the ring: when the call that is queued now fails, the watch is to be ended. */
  queueAdd(ring: Ring, fd: number, events: number, target: EventTarget): Watch {
    const slot = this.#watches.add(fd, target)
    ring.epollAdd(this.#epollFd, fd, this.#eventOf(slot, events))
    return slot
  }

  /** As `add`, but takes the descriptor: it is closed when it cannot be watched (ENOSPC: fs.epoll.max_user_watches). */
  take(fd: number, events: number, target: EventTarget): Watch {
    try {
      return this.add(fd, events, target)
    } catch (error) {
      setResetOnClose(fd)
      closeFd(fd)
      throw error
    }
  }

  /** Changes the events that are watched for; 0 pauses (errors and hang-ups are still reported). */
  modify(watch: Watch, events: number): void {
    this.#control(EPOLL_CTL_MOD, watch as Slot, events)
  }

  /** Ends the watch: no event of it is delivered any more, not even one that was already fetched. */
  remove(watch: Watch): void {
    if (this.#forget(watch as Slot)) ffi.epollCtl(this.#epollFd, EPOLL_CTL_DEL, watch.fd, this.#event)
  }

  /** Ends the watch and closes its descriptor, which takes it out of the epoll set as well (epoll(7)). */
  close(watch: Watch): void {
    if (this.#forget(watch as Slot)) closeFd(watch.fd)
  }

  /** As close(), but its descriptor may stay open until the events that were fetched together have been delivered. */
  closeLater(watch: Watch): void {
    if (!this.#draining) this.close(watch)
    else if (this.#forget(watch as Slot) && this.#closings.push(watch.fd) >= RING_CALLS) this.#closeAll()
  }

  /** For many calls in one, within a turn; undefined where the kernel has none for us, and while nothing is watched. */
  get ring(): Ring | undefined {
    if (!this.#mayHaveRing) return undefined
    if (this.#ring === undefined && this.#epollFd >= 0) this.#ring = Ring.open(RING_CALLS) ?? null
    return this.#ring ?? undefined
  }

  /** Each call is made by itself from now on. A ring that is there is closed with the set: somebody may be using it. */
  refuseRing(): void {
    this.#mayHaveRing = false
  }

  #forget(slot: Slot): boolean {
    const wasWatched = this.#watches.delete(slot)
    if (wasWatched && this.#watches.size === 0) this.#closeSoon()
    return wasWatched
  }

  /** Runs `work` in the next turn of the loop: for one who stops before its descriptor is drained, so that others have their turn. */
  later(work: () => void): void {
    this.#again.push(work)
    if (this.#againScheduled) return
    this.#againScheduled = true
    setImmediate(() => {
      this.#againScheduled = false
      const due = this.#again
      this.#again = []
      this.now = performance.now()
      for (const run of due) this.#guard(run)
      this.#runUnhurried()
    })
  }

  /**
   * Runs `work` behind the events that were fetched together: for one with much to do, who calls deliver() now and then, so that
   * those with little to do need not wait for it.
   */
  unhurried(work: () => void): void {
    if (this.#draining) this.#unhurried.push(work)
    else this.later(work)
  }

  /** Delivers the events that wait, one batch of them. For work of unhurried() and later(); a target that gets events must not call it. */
  deliver(): void {
    this.#deliver()
  }

  /**
   * Runs `work` when the events that were fetched together have all been delivered; in the next turn when none are being delivered. What it
   * asks for in turn runs behind it: a flow is looked at, dialled and relayed within a turn, each together with those of other flows.
   */
  afterEvents(work: () => void): void {
    if (this.#draining) this.#afterEvents.push(work)
    else this.later(work)
  }

  #open(): void {
    const fd = ffi.epollCreate1(EPOLL_CLOEXEC)
    if (fd < 0) throw new SyscallError('epoll_create1', lastErrno(), 'EPOLL_CLOEXEC')
    this.#epollFd = fd
    this.#poll = pollReadable(fd, () => this.#drain())
  }

  /** Not at once: a flow that ends is often followed by the next, and opening costs two system calls. */
  #closeSoon(): void {
    if (this.#closing) return
    this.#closing = true
    this.#poll?.unref()
    setImmediate(() => {
      this.#closing = false
      if (this.#watches.size > 0) {
        this.#poll?.ref()
        return
      }
      this.#poll?.close()
      this.#poll = undefined
      closeFd(this.#epollFd)
      this.#epollFd = -1
      this.#ring?.close()
      this.#ring = undefined
    })
  }

  #eventOf(slot: Slot, events: number): Uint32Array {
    this.#event[0] = events
    this.#event[DATA_AT] = slot.index
    this.#event[DATA_AT + 1] = slot.generation
    return this.#event
  }

  #control(operation: number, slot: Slot, events: number): void {
    if (ffi.epollCtl(this.#epollFd, operation, slot.fd, this.#eventOf(slot, events)) === 0) return
    throw new SyscallError('epoll_ctl', lastErrno(), `operation ${operation}, fd ${slot.fd}`)
  }

  #drain(): void {
    for (let batch = 0; batch < BATCHES_PER_TURN; batch++) {
      const count = this.#deliver()
      this.#runUnhurried()
      if (count < BATCH) return
    }
  }

  /** How many events there were. */
  #deliver(): number {
    if (this.#epollFd < 0) return 0
    const events = this.#events
    const count = ffi.epollWait(this.#epollFd, events, BATCH, 0)
    if (count <= 0) return 0
    this.now = performance.now()
    this.#draining = true
    for (let i = 0; i < count; i++) {
      const at = i * WORDS
      // its place may be another's since the event was fetched
      const slot = this.#watches.find(events[at + DATA_AT]!, events[at + DATA_AT + 1]!)
      if (slot === undefined) continue
      try {
        slot.target.onEvents(events[at]!)
      } catch (error) {
        this.#surface(error)
      }
    }
    if (this.#afterEvents.length > 0) this.#runAfterEvents()
    this.#draining = false
    if (this.#closings.length > 0) this.#closeAll()
    return count
  }

  /** What comes up while it runs is for the next turn, so that timers and promises have theirs. */
  #runUnhurried(): void {
    if (this.#unhurried.length === 0) return
    const due = this.#unhurried
    this.#unhurried = []
    for (const run of due) this.#guard(run)
    for (const run of this.#unhurried.splice(0)) this.later(run)
  }

  #runAfterEvents(): void {
    for (let stage = 0; stage < STAGES_PER_TURN && this.#afterEvents.length > 0; stage++) {
      const due = this.#afterEvents
      this.#afterEvents = []
      for (const run of due) this.#guard(run)
    }
    for (const run of this.#afterEvents.splice(0)) this.later(run)
  }

  #closeAll(): void {
    const fds = this.#closings
    this.#closings = []
    const ring = fds.length > 1 ? this.ring : undefined
    if (ring === undefined) for (const fd of fds) closeFd(fd)
    else {
      for (const fd of fds) ring.closeFd(fd)
      ring.run()
    }
  }

  #guard(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.#surface(error)
    }
  }

  /** A defect in one target must not cost the others their events: it surfaces as an uncaught exception of its own. */
  #surface(error: unknown): void {
    setImmediate(() => {
      throw error
    })
  }
}

/** The thread's loop: one epoll set beside the one libuv loop. */
export const eventLoop = new EventLoop()
