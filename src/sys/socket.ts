import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { EINPROGRESS, SyscallError } from './errno.ts'
import { ffi, lastErrno } from './ffi.ts'
import { decodeSockaddr, domainOf, SOCKADDR_BYTES, sharedSockaddr } from './sockaddr.ts'

const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
/** For socket(2) and accept4(2). */
export const NEW_SOCKET_FLAGS = SOCK_NONBLOCK | SOCK_CLOEXEC
/** Type and flags for socket(2) of a TCP socket that does not wait. */
export const NEW_TCP_SOCKET = SOCK_STREAM | NEW_SOCKET_FLAGS
const MSG_PEEK = 0x2
const MSG_NOSIGNAL = 0x4000
const MSG_MORE = 0x8000
const MSG_FASTOPEN = 0x2000_0000
const SHUT_WR = 1
const SPLICE_FLAGS = 0x1 | 0x2 // SPLICE_F_MOVE | SPLICE_F_NONBLOCK

const sockaddr = new Uint8Array(SOCKADDR_BYTES)
const sockaddrLength = new Uint32Array(1)

/** A new non-blocking TCP socket. The caller owns it. */
export function openTcp(family: Family): number {
  const fd = ffi.socket(domainOf(family), NEW_TCP_SOCKET, 0)
  if (fd < 0) throw new SyscallError('socket', lastErrno(), `TCP over IPv${family}`)
  return fd
}

/** A new non-blocking UDP socket. The caller owns it. */
export function openUdp(family: Family): number {
  const fd = ffi.socket(domainOf(family), SOCK_DGRAM | NEW_SOCKET_FLAGS, 0)
  if (fd < 0) throw new SyscallError('socket', lastErrno(), `UDP over IPv${family}`)
  return fd
}

/** A new non-blocking raw socket of an IP protocol (raw(7)). Needs CAP_NET_RAW. The caller owns it. */
export function openRaw(family: Family, protocol: number): number {
  const fd = ffi.socket(domainOf(family), SOCK_RAW | NEW_SOCKET_FLAGS, protocol)
  if (fd < 0)
    throw new SyscallError('socket', lastErrno(), `raw, protocol ${protocol} over IPv${family}`, 'CAP_NET_RAW')
  return fd
}

/** Throws SyscallError; EADDRINUSE and EADDRNOTAVAIL are the caller's to judge by `errno`. */
export function bindSocket(fd: number, endpoint: Endpoint): void {
  const bytes = sharedSockaddr(endpoint)
  if (ffi.bind(fd, bytes, bytes.length) < 0) {
    throw new SyscallError('bind', lastErrno(), formatEndpoint(endpoint), 'CAP_NET_BIND_SERVICE')
  }
}

export function listenSocket(fd: number, backlog: number): void {
  if (ffi.listen(fd, backlog) < 0) throw new SyscallError('listen', lastErrno(), `backlog ${backlog}`)
}

/**
 * Starts a connect; returns 0 when it is under way or done, else the errno (ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL …),
 * which is an outcome, not an exception.
 */
export function startConnect(fd: number, endpoint: Endpoint): number {
  const bytes = sharedSockaddr(endpoint)
  if (ffi.connect(fd, bytes, bytes.length) === 0) return 0
  const errno = lastErrno()
  return errno === EINPROGRESS ? 0 : errno
}

/** The first bytes of a connection, which may go out with its SYN. */
export interface FirstBytes {
  readonly bytes: Uint8Array
  /** How many of them the kernel has taken. */
  sent: number
}

/**
 * As startConnect(), with the first bytes in the SYN when a cookie for that server is known (RFC 7413, MSG_FASTOPEN);
 * else none are sent, and the cookie is asked for. Unlike TCP_FASTOPEN_CONNECT it leaves nothing pending: epoll's
 * EPOLLOUT means connected, and a server that speaks first is not kept waiting.
 */
export function startFastOpen(fd: number, endpoint: Endpoint, first: FirstBytes): number {
  const address = sharedSockaddr(endpoint)
  const flags = MSG_FASTOPEN | MSG_NOSIGNAL
  const count = ffi.sendto(fd, first.bytes, first.bytes.length, flags, address, address.length)
  first.sent = Math.max(0, count)
  if (count >= 0) return 0
  const errno = lastErrno()
  return errno === EINPROGRESS ? 0 : errno
}

export interface Accepted {
  readonly fd: number
  readonly clientAddr: Endpoint
}

/** Takes one connection out of the backlog: a non-blocking socket that the caller owns, or the negative errno. */
export function acceptConnection(listenFd: number): Accepted | number {
  sockaddrLength[0] = SOCKADDR_BYTES
  const fd = ffi.accept4(listenFd, sockaddr, sockaddrLength, NEW_SOCKET_FLAGS)
  return fd < 0 ? -lastErrno() : { fd, clientAddr: decodeSockaddr(sockaddr) }
}

/** Our end of the socket. On an intercepted (TPROXY) connection that is the original destination. */
export function localEndpoint(fd: number): Endpoint {
  sockaddrLength[0] = SOCKADDR_BYTES
  if (ffi.getsockname(fd, sockaddr, sockaddrLength) < 0) throw new SyscallError('getsockname', lastErrno(), `fd ${fd}`)
  return decodeSockaddr(sockaddr)
}

/** Bytes read into `bytes`, 0 at the peer's FIN, or the negative errno. */
export function receive(fd: number, bytes: Uint8Array, length: number): number {
  const count = ffi.recv(fd, bytes, length, 0)
  return count < 0 ? -lastErrno() : count
}

/** As receive(), and the bytes stay for the next one (MSG_PEEK). */
export function peekBytes(fd: number, bytes: Uint8Array, length: number): number {
  const count = ffi.recv(fd, bytes, length, MSG_PEEK)
  return count < 0 ? -lastErrno() : count
}

/**
 * Bytes taken by the kernel, or the negative errno. Never raises SIGPIPE. With `isLast` the kernel may wait for the FIN,
 * which has to follow at once, and send both in one segment (MSG_MORE, send(2)).
 */
export function transmit(fd: number, bytes: Uint8Array, length: number, isLast = false): number {
  const count = ffi.send(fd, bytes, length, sendFlags(isLast))
  return count < 0 ? -lastErrno() : count
}

/** Flags of send(2), as transmit() says. */
export function sendFlags(isLast: boolean): number {
  return isLast ? MSG_NOSIGNAL | MSG_MORE : MSG_NOSIGNAL
}

/** splice(2) between a socket and a pipe, either way: bytes moved, 0 at end of input, or the negative errno. */
export function spliceBytes(from: number, to: number, length: number): number {
  const count = ffi.splice(from, null, to, null, length, SPLICE_FLAGS)
  return count < 0 ? -lastErrno() : count
}

/** Sends FIN after what was written. The result does not matter: on a dead connection there is nobody to tell. */
export function finishWriting(fd: number): void {
  ffi.shutdown(fd, SHUT_WR)
}

/** close(2) of a descriptor that we own; on Linux it is gone whatever close says. */
export function closeFd(fd: number): void {
  ffi.close(fd)
}
