import { HIGH_WORD, LOW_WORD, littleEndian } from './byte-order.ts'
import { EAGAIN, EINTR } from './errno.ts'
import { ffi, lastErrno, viewOf } from './ffi.ts'
import { FixedMemory } from './fixed-memory.ts'
import { SOCKADDR_BYTES } from './sockaddr.ts'
import { closeFd } from './socket.ts'

// linux/io_uring.h
const IORING_SETUP_SUBMIT_ALL = 1 << 7
const IORING_SETUP_SINGLE_ISSUER = 1 << 12
const IORING_SETUP_DEFER_TASKRUN = 1 << 13
const IORING_FEAT_SINGLE_MMAP = 1 << 0
const IORING_OFF_SQES = 0x1000_0000
const IORING_ENTER_GETEVENTS = 1 << 0
const IORING_OP_ACCEPT = 13
const IORING_OP_CLOSE = 19
const IORING_OP_SEND = 26
const IORING_OP_RECV = 27
const IORING_OP_EPOLL_CTL = 29
const IORING_OP_SOCKET = 45
const IORING_OP_URING_CMD = 46
const IORING_OP_BIND = 56
const IORING_ACCEPT_DONTWAIT = 1 << 1
const SOCKET_URING_OP_SETSOCKOPT = 3
const EPOLL_CTL_ADD = 1
const PARAMS_WORDS = 30 // struct io_uring_params: ten words, then the offsets of both rings, ten words each
const SQE_WORDS = 16
const CQE_WORDS = 4

const PROT_READ_WRITE = 0x1 | 0x2
const MAP_SHARED_POPULATE = 0x1 | 0x8000
const MAP_FAILED = -1
const MSG_DONTWAIT = 0x40
const MSG_PEEK = 0x2

/** Of each call: what it is given or gives by address, such as a sockaddr and its length. */
const ARGUMENT_BYTES = SOCKADDR_BYTES + 4
const ARGUMENT_WORDS = ARGUMENT_BYTES / 4
const LENGTH_WORD = SOCKADDR_BYTES / 4

interface Mapping {
  readonly address: number
  readonly bytes: number
}

function map(fd: number, bytes: number, offset: number): Mapping | undefined {
  const address = ffi.mmap(0, bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset)
  return address === MAP_FAILED ? undefined : { address, bytes }
}

function setAddress(entry: Uint32Array, at: number, address: number): void {
  entry[at + LOW_WORD] = address >>> 0
  entry[at + HIGH_WORD] = Math.floor(address / 2 ** 32)
}

/** The first word of an entry: operation, flags (none), and the 16 bits of `ioprio`, in which some operations have flags of their own. */
function withPriority(operation: number, priority: number): number {
  return littleEndian ? operation | (priority << 16) : (operation << 24) | priority
}

/**
 * Many system calls in one, by io_uring(7): what is queued is done by run(), in order, and has its results when run() returns.
 * Nothing is left to the kernel to finish later: a call that would wait ends with EAGAIN. It saves what it costs to enter and leave the
 * kernel, which on a machine with page-table isolation is more than a small message's copy.
 */
export class Ring {
  readonly #fd: number
  readonly #memory: readonly Mapping[]
  readonly #submission: Uint32Array
  readonly #rings: Uint32Array
  readonly #headAt: number
  readonly #tailAt: number
  readonly #mask: number
  readonly #completionHeadAt: number
  readonly #completionTailAt: number
  readonly #completionsAt: number
  readonly #completionMask: number
  #tail = 0
  /** Calls that may be queued before run(). */
  readonly capacity: number
  /** Of the last run(), by the order of queueing: what the call returned, or the negative errno. */
  readonly results: Int32Array
  readonly #arguments: FixedMemory
  #queued = 0

  private constructor(fd: number, params: Uint32Array, rings: Mapping, submission: Mapping) {
    const [submissionHead, tail, mask, , , , array] = params.subarray(10, 20)
    const [head, completionTail, completionMask, , , completions] = params.subarray(20, 30)
    this.#fd = fd
    this.#memory = [rings, submission]
    this.#rings = new Uint32Array(viewOf(rings.address, rings.bytes))
    this.#submission = new Uint32Array(viewOf(submission.address, submission.bytes))
    this.capacity = params[0]!
    this.results = new Int32Array(this.capacity)
    this.#arguments = new FixedMemory(this.capacity * ARGUMENT_BYTES)
    this.#headAt = submissionHead! >>> 2
    this.#tailAt = tail! >>> 2
    this.#mask = this.#rings[mask! >>> 2]!
    this.#completionHeadAt = head! >>> 2
    this.#completionTailAt = completionTail! >>> 2
    this.#completionMask = this.#rings[completionMask! >>> 2]!
    this.#completionsAt = completions! >>> 2
    // the n-th place of the queue is always the n-th entry
    for (let i = 0; i < this.capacity; i++) this.#rings[(array! >>> 2) + i] = i
  }

  /** A ring for `capacity` calls at a time (a power of two); undefined where the kernel has none for us: before Linux 6.1, or forbidden. */
  static open(capacity: number): Ring | undefined {
    const params = new Uint32Array(PARAMS_WORDS)
    params[2] = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
    const fd = ffi.ioUringSetup(capacity, params)
    if (fd < 0) return undefined
    const bytes = Math.max(params[16]! + params[0]! * 4, params[25]! + params[1]! * CQE_WORDS * 4)
    const rings = (params[5]! & IORING_FEAT_SINGLE_MMAP) === 0 ? undefined : map(fd, bytes, 0)
    const submission = rings && map(fd, params[0]! * SQE_WORDS * 4, IORING_OFF_SQES)
    if (submission !== undefined) return new Ring(fd, params, rings!, submission)
    if (rings !== undefined) ffi.munmap(rings.address, rings.bytes)
    closeFd(fd)
    return undefined
  }

  /** recv(2) into memory at an address, which must stay where it is until run() has returned. */
  receive(fd: number, address: number, length: number): void {
    this.#move(IORING_OP_RECV, fd, address, length, MSG_DONTWAIT)
  }

  /** As receive(), and the bytes stay for the next one (MSG_PEEK). */
  peek(fd: number, address: number, length: number): void {
    this.#move(IORING_OP_RECV, fd, address, length, MSG_DONTWAIT | MSG_PEEK)
  }

  /** send(2) from memory at an address. */
  send(fd: number, address: number, length: number, flags: number): void {
    this.#move(IORING_OP_SEND, fd, address, length, flags | MSG_DONTWAIT)
  }

  /** close(2). */
  closeFd(fd: number): void {
    this.#queue(IORING_OP_CLOSE, fd)
  }

  /** accept4(2); whom, says acceptedFrom(). Since Linux 6.10; before, its result is -EINVAL. */
  accept(fd: number, flags: number): void {
    const at = this.#queue(IORING_OP_ACCEPT, fd)
    const entry = this.#submission
    const argument = this.#queued - 1
    this.#arguments.words[argument * ARGUMENT_WORDS + LENGTH_WORD] = SOCKADDR_BYTES
    entry[at] = withPriority(IORING_OP_ACCEPT, IORING_ACCEPT_DONTWAIT)
    setAddress(entry, at + 2, this.#addressOf(argument) + SOCKADDR_BYTES)
    setAddress(entry, at + 4, this.#addressOf(argument))
    entry[at + 7] = flags
  }

  /** The sockaddr of whom the call at this place of the last run() has accepted: valid until the next call is queued. */
  acceptedFrom(place: number): Uint8Array {
    const at = place * ARGUMENT_BYTES
    return this.#arguments.bytes.subarray(at, at + SOCKADDR_BYTES)
  }

  /** socket(2). */
  openSocket(domain: number, type: number): void {
    const at = this.#queue(IORING_OP_SOCKET, domain)
    this.#submission[at + 2 + LOW_WORD] = type
  }

  /** setsockopt(2) of a number. Since Linux 6.7; before, its result is -EOPNOTSUPP. */
  setOption(fd: number, level: number, option: number, value: number): void {
    const at = this.#queue(IORING_OP_URING_CMD, fd)
    const entry = this.#submission
    const argument = this.#queued - 1
    this.#arguments.words[argument * ARGUMENT_WORDS] = value
    entry[at + 2] = SOCKET_URING_OP_SETSOCKOPT
    entry[at + 4] = level
    entry[at + 5] = option
    entry[at + 11] = 4
    setAddress(entry, at + 12, this.#addressOf(argument))
  }

  /** bind(2). Since Linux 6.11; before, its result is -EINVAL. */
  bind(fd: number, sockaddr: Uint8Array): void {
    const at = this.#queue(IORING_OP_BIND, fd)
    const argument = this.#queued - 1
    this.#arguments.bytes.set(sockaddr, argument * ARGUMENT_BYTES)
    setAddress(this.#submission, at + 4, this.#addressOf(argument))
    this.#submission[at + 2 + LOW_WORD] = sockaddr.length
  }

  /** epoll_ctl(2), EPOLL_CTL_ADD. `event`: the words of a struct epoll_event. */
  epollAdd(epollFd: number, fd: number, event: Uint32Array): void {
    const at = this.#queue(IORING_OP_EPOLL_CTL, epollFd)
    const argument = this.#queued - 1
    this.#arguments.words.set(event, argument * ARGUMENT_WORDS)
    this.#submission[at + 2 + LOW_WORD] = fd
    setAddress(this.#submission, at + 4, this.#addressOf(argument))
    this.#submission[at + 6] = EPOLL_CTL_ADD
  }

  #addressOf(argument: number): number {
    return this.#arguments.address + argument * ARGUMENT_BYTES
  }

  #move(operation: number, fd: number, address: number, length: number, flags: number): void {
    const at = this.#queue(operation, fd)
    const entry = this.#submission
    setAddress(entry, at + 4, address)
    entry[at + 6] = length
    entry[at + 7] = flags
  }

  /** An entry with all else 0; where its words begin. */
  #queue(operation: number, fd: number): number {
    const at = (this.#tail & this.#mask) * SQE_WORDS
    const entry = this.#submission
    for (let i = at + 2; i < at + SQE_WORDS; i++) entry[i] = 0
    entry[at] = withPriority(operation, 0)
    entry[at + 1] = fd
    entry[at + 8 + LOW_WORD] = this.#queued
    this.#tail = (this.#tail + 1) >>> 0
    this.results[this.#queued++] = -EAGAIN
    return at
  }

  /** Does what is queued. Calls that the kernel had no memory to begin have -EAGAIN. */
  run(): void {
    this.#rings[this.#tailAt] = this.#tail
    let left = this.#queued
    this.#queued = 0
    while (left > 0) {
      const begun = ffi.ioUringEnter(this.#fd, left, left, IORING_ENTER_GETEVENTS)
      if (begun < 0 && lastErrno() !== EINTR) break
      left -= Math.max(0, begun)
    }
    if (left > 0) this.#rings[this.#tailAt] = this.#tail = this.#rings[this.#headAt]! // takes back what was not begun
    this.#collect()
  }

  #collect(): void {
    const rings = this.#rings
    const tail = rings[this.#completionTailAt]!
    let head = rings[this.#completionHeadAt]!
    for (; head !== tail; head = (head + 1) >>> 0) {
      const at = this.#completionsAt + (head & this.#completionMask) * CQE_WORDS
      this.results[rings[at + LOW_WORD]!] = rings[at + 2]! | 0
    }
    rings[this.#completionHeadAt] = head
  }

  close(): void {
    for (const { address, bytes } of this.#memory) ffi.munmap(address, bytes)
    closeFd(this.#fd)
  }
}
