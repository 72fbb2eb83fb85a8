import { createRequire } from 'node:module'
import { LimpidError } from '../errors.ts'

/**
 * The FFI table: every libc function that Limpid calls, and nothing else. Raw: -1 and errno on failure, no checks.
 * Only files of src/sys import it. Pointers are buffers or typed arrays, which must stay alive during the call
 * (koffi passes their memory, it does not copy).
 */

/** Memory passed by address. */
export type Memory = Uint8Array | Int32Array | Uint32Array | BigInt64Array

export interface PollHandle {
  close(): void
  ref(): void
  unref(): void
}

interface Koffi {
  load(path: null): { func(prototype: string): unknown }
  alias(name: string, type: string): unknown
  errno(): number
  errno(value: number): number
  address(memory: Memory): bigint
  view(address: number, bytes: number): ArrayBuffer
  os: { errno: Record<string, number> }
  node: { poll(fd: number, options: { readable: boolean }, callback: (status: number) => void): PollHandle }
}

function loadKoffi(): Koffi {
  try {
    return createRequire(import.meta.url)('koffi') as Koffi
  } catch (cause) {
    throw new LimpidError('LIMPID_FFI', `cannot load koffi for ${process.platform}-${process.arch}`, {
      cure: 'install with optional dependencies (npm ci without --omit=optional), for this machine’s architecture',
      cause,
    })
  }
}

const koffi = loadKoffi()
koffi.alias('ssize_t', 'int64')
const libc = koffi.load(null)
const bind = <F>(prototype: string): F => libc.func(prototype) as F

// neither has a function in libc; the numbers are the same on all architectures (include/uapi/asm-generic/unistd.h)
const SYS_io_uring_setup = 425
const SYS_io_uring_enter = 426
const ioUringSetup = bind<(number: number, entries: number, params: Memory) => number>(
  'long syscall(long, uint32_t, void *)',
)
const ioUringEnter = bind<
  (number: number, fd: number, count: number, wait: number, flags: number, signals: number, size: number) => number
>('long syscall(long, uint32_t, uint32_t, uint32_t, uint32_t, uintptr_t, size_t)')

type Fd = number
/** Where memory lies: see addressOf(). */
type Address = number

export const ffi = {
  socket: bind<(domain: number, type: number, protocol: number) => number>('int socket(int, int, int)'),
  bind: bind<(fd: Fd, address: Memory, length: number) => number>('int bind(int, const void *, uint32_t)'),
  listen: bind<(fd: Fd, backlog: number) => number>('int listen(int, int)'),
  accept4: bind<(fd: Fd, address: Memory, length: Memory, flags: number) => number>(
    'int accept4(int, void *, void *, int)',
  ),
  connect: bind<(fd: Fd, address: Memory, length: number) => number>('int connect(int, const void *, uint32_t)'),
  getsockname: bind<(fd: Fd, address: Memory, length: Memory) => number>('int getsockname(int, void *, void *)'),
  getpeername: bind<(fd: Fd, address: Memory, length: Memory) => number>('int getpeername(int, void *, void *)'),
  setsockopt: bind<(fd: Fd, level: number, name: number, value: Memory, length: number) => number>(
    'int setsockopt(int, int, int, const void *, uint32_t)',
  ),
  getsockopt: bind<(fd: Fd, level: number, name: number, value: Memory, length: Memory) => number>(
    'int getsockopt(int, int, int, void *, void *)',
  ),
  shutdown: bind<(fd: Fd, how: number) => number>('int shutdown(int, int)'),
  close: bind<(fd: Fd) => number>('int close(int)'),
  recv: bind<(fd: Fd, bytes: Memory, length: number, flags: number) => number>(
    'ssize_t recv(int, void *, size_t, int)',
  ),
  send: bind<(fd: Fd, bytes: Memory, length: number, flags: number) => number>(
    'ssize_t send(int, const void *, size_t, int)',
  ),
  splice: bind<(from: Fd, offIn: null, to: Fd, offOut: null, length: number, flags: number) => number>(
    'ssize_t splice(int, void *, int, void *, size_t, uint32_t)',
  ),
  pipe2: bind<(fds: Memory, flags: number) => number>('int pipe2(void *, int)'),
  ioctl: bind<(fd: Fd, request: number, value: Memory) => number>('int ioctl(int, unsigned long, void *)'),
  fcntl: bind<(fd: Fd, command: number, argument: number) => number>('int fcntl(int, int, int)'),
  epollCreate1: bind<(flags: number) => number>('int epoll_create1(int)'),
  epollCtl: bind<(epoll: Fd, operation: number, fd: Fd, event: Memory) => number>(
    'int epoll_ctl(int, int, int, void *)',
  ),
  epollWait: bind<(epoll: Fd, events: Memory, count: number, timeoutMs: number) => number>(
    'int epoll_wait(int, void *, int, int)',
  ),
  timerfdCreate: bind<(clock: number, flags: number) => number>('int timerfd_create(int, int)'),
  timerfdSettime: bind<(fd: Fd, flags: number, value: Memory, old: null) => number>(
    'int timerfd_settime(int, int, const void *, void *)',
  ),
  sendto: bind<
    (fd: Fd, bytes: Memory, length: number, flags: number, address: Memory, addressLength: number) => number
  >('ssize_t sendto(int, const void *, size_t, int, const void *, uint32_t)'),
  recvmmsg: bind<(fd: Fd, headers: Address, count: number, flags: number, timeout: null) => number>(
    'int recvmmsg(int, uintptr_t, uint32_t, int, void *)',
  ),
  sendmmsg: bind<(fd: Fd, headers: Address, count: number, flags: number) => number>(
    'int sendmmsg(int, uintptr_t, uint32_t, int)',
  ),
  recvmsg: bind<(fd: Fd, header: Address, flags: number) => number>('ssize_t recvmsg(int, uintptr_t, int)'),
  sendmsg: bind<(fd: Fd, header: Address, flags: number) => number>('ssize_t sendmsg(int, uintptr_t, int)'),
  ioUringSetup: (entries: number, params: Memory) => Number(ioUringSetup(SYS_io_uring_setup, entries, params)),
  ioUringEnter: (ring: Fd, count: number, wait: number, flags: number) =>
    Number(ioUringEnter(SYS_io_uring_enter, ring, count, wait, flags, 0, 0)),
  mmap: bind<(address: number, length: number, protection: number, flags: number, fd: Fd, offset: number) => number>(
    'intptr_t mmap(uintptr_t, size_t, int, int, int, int64)',
  ),
  munmap: bind<(address: Address, length: number) => number>('int munmap(uintptr_t, size_t)'),
  unshare: bind<(flags: number) => number>('int unshare(int)'),
  setns: bind<(fd: Fd, kind: number) => number>('int setns(int, int)'),
}

/**
 * The address of memory, for structs that point to other memory. It holds as long as the array is referenced, and only for
 * arrays over 64 bytes: V8 moves smaller ones.
 */
export function addressOf(memory: Memory): number {
  return Number(koffi.address(memory))
}

/** The memory at an address that mmap(2) gave: not to be touched any more after munmap(2). */
export function viewOf(address: Address, bytes: number): ArrayBuffer {
  return koffi.view(address, bytes)
}

/** errno of the last failed call of the table. */
export function lastErrno(): number {
  return koffi.errno()
}

/** errno names of this platform, e.g. `{ EPERM: 1, … }`. */
export const ERRNO: Readonly<Record<string, number>> = koffi.os.errno

/**
 * Watches `fd` for readability in libuv's loop (uv_poll, level-triggered); the handle keeps the process alive until
 * `unref()` or `close()`.
 */
export function pollReadable(fd: number, callback: () => void): PollHandle {
  return koffi.node.poll(fd, { readable: true }, callback)
}
