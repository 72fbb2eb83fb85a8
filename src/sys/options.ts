import type { Endpoint, Family } from '../net/address.ts'
import { EINVAL, ENOPROTOOPT, SyscallError } from './errno.ts'
import { ffi, lastErrno } from './ffi.ts'
import { decodeSockaddr, SOCKADDR_BYTES } from './sockaddr.ts'

// Linux's numbers for x86, ARM, RISC-V, POWER (asm-generic/socket.h, linux/in.h, linux/in6.h, linux/tcp.h).
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_RCVBUF = 8
const SO_KEEPALIVE = 9
const SO_OOBINLINE = 10
const SO_LINGER = 13
const SO_REUSEPORT = 15
const SO_RCVBUFFORCE = 33
const SO_MARK = 36
const SO_MEMINFO = 55
const IPPROTO_IP = 0
const IP_TOS = 1
const IP_MTU_DISCOVER = 10
const IP_PMTUDISC_DONT = 0
const IP_RECVERR = 11
const IP_RECVTOS = 13
const IP_MTU = 14
const IP_TRANSPARENT = 19
const IP_RECVORIGDSTADDR = 20
const IP_BIND_ADDRESS_NO_PORT = 24
const SO_ORIGINAL_DST = 80 // linux/netfilter_ipv4.h; the same number for IPv6 (netfilter_ipv6/ip6_tables.h)
const IPPROTO_IPV6 = 41
const IPV6_MTU = 24
const IPV6_RECVERR = 25
const IPV6_V6ONLY = 26
const IPV6_RECVTCLASS = 66
const IPV6_TCLASS = 67
const IPV6_RECVORIGDSTADDR = 74
const IPV6_TRANSPARENT = 75
const IPPROTO_UDP = 17
const UDP_SEGMENT = 103
const UDP_GRO = 104
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const TCP_KEEPIDLE = 4
const TCP_KEEPINTVL = 5
const TCP_KEEPCNT = 6
const TCP_DEFER_ACCEPT = 9
const TCP_INFO = 11
const TCP_QUICKACK = 12
const TCP_USER_TIMEOUT = 18
const TCP_FASTOPEN = 23
const SIOCOUTQ = 0x5411 // linux/sockios.h

const number = new Int32Array(1)
const numberLength = new Uint32Array(1)

function setNumber(fd: number, level: number, option: number, value: number, what: string, capability?: string): void {
  setOption(fd, { level, option, value, what, capability })
}

/** A socket option whose value is a number. `what`: its name, for errors. */
export interface SocketOption {
  readonly level: number
  readonly option: number
  readonly value: number
  readonly what: string
  readonly capability?: string | undefined
}

function one(level: number, option: number, what: string, capability?: string): SocketOption {
  return { level, option, value: 1, what, capability }
}

export function setOption(fd: number, { level, option, value, what, capability }: SocketOption): void {
  number[0] = value
  if (ffi.setsockopt(fd, level, option, number, 4) < 0) {
    throw new SyscallError('setsockopt', lastErrno(), `${what}, ${value}`, capability)
  }
}

/**
 * Lets the socket bind to addresses that are not ours and accept flows that were intercepted (ip(7), IP_TRANSPARENT;
 * IPV6_TRANSPARENT for IPv6). Needs CAP_NET_RAW or CAP_NET_ADMIN. Set before bind().
 */
export function setTransparent(fd: number, family: Family): void {
  setOption(fd, transparent(family))
}

export function transparent(family: Family): SocketOption {
  return family === 4 ? TRANSPARENT_4 : TRANSPARENT_6
}

const TRANSPARENT_4 = one(IPPROTO_IP, IP_TRANSPARENT, 'IP_TRANSPARENT', 'CAP_NET_RAW')
const TRANSPARENT_6 = one(IPPROTO_IPV6, IPV6_TRANSPARENT, 'IPV6_TRANSPARENT', 'CAP_NET_RAW')

/** fwmark of every packet that the socket sends. Needs CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17. Before connect(). */
export function setMark(fd: number, mark: number): void {
  setOption(fd, marked(mark))
}

export function marked(mark: number): SocketOption {
  return { level: SOL_SOCKET, option: SO_MARK, value: mark | 0, what: 'SO_MARK', capability: 'CAP_NET_ADMIN' }
}

/** DSCP of every packet that the socket sends; its ECN bits stay the kernel's (ip(7), IP_TOS; RFC 3542 §6.5). Before connect(). */
export function differentiated(family: Family, dscp: number): SocketOption {
  const value = dscp << 2
  return family === 4
    ? { level: IPPROTO_IP, option: IP_TOS, value, what: 'IP_TOS' }
    : { level: IPPROTO_IPV6, option: IPV6_TCLASS, value, what: 'IPV6_TCLASS' }
}

/** bind() fixes only the address; connect() picks a port that is free for that destination (ip(7)). */
export function setBindAddressNoPort(fd: number): void {
  setOption(fd, BIND_ADDRESS_NO_PORT)
}

export const BIND_ADDRESS_NO_PORT = one(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 'IP_BIND_ADDRESS_NO_PORT')

export function setReuseAddress(fd: number): void {
  setOption(fd, REUSE_ADDRESS)
}

export const REUSE_ADDRESS = one(SOL_SOCKET, SO_REUSEADDR, 'SO_REUSEADDR')

export function setReusePort(fd: number): void {
  setNumber(fd, SOL_SOCKET, SO_REUSEPORT, 1, 'SO_REUSEPORT')
}

export function setIpv6Only(fd: number): void {
  setNumber(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, 'IPV6_V6ONLY')
}

/** Urgent bytes stay where they stand in the stream instead of being taken out of it (RFC 6093 §2, socket(7)). */
export function setUrgentInline(fd: number): void {
  setOption(fd, URGENT_INLINE)
}

export const URGENT_INLINE = one(SOL_SOCKET, SO_OOBINLINE, 'SO_OOBINLINE')

export function setNoDelay(fd: number): void {
  setOption(fd, NO_DELAY)
}

export const NO_DELAY = one(IPPROTO_TCP, TCP_NODELAY, 'TCP_NODELAY')

/** What is received is acknowledged a little later, with data that goes the other way (tcp(7), TCP_QUICKACK); before connect() also the SYN-ACK. */
export const NO_QUICK_ACK: SocketOption = { level: IPPROTO_TCP, option: TCP_QUICKACK, value: 0, what: 'TCP_QUICKACK' }

/** Accepts only once the client sent data, or after `seconds` (tcp(7)). */
export function setDeferAccept(fd: number, seconds: number): void {
  setNumber(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds, 'TCP_DEFER_ACCEPT')
}

/** Fast Open on a listener (RFC 7413); `queue` bounds the connections whose handshake is not finished. */
export function setFastOpen(fd: number, queue: number): void {
  setNumber(fd, IPPROTO_TCP, TCP_FASTOPEN, queue, 'TCP_FASTOPEN')
}

const KEEPALIVE_PROBES = 3
const MAX_KEEPALIVE_SECONDS = 32_767 // MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, include/net/tcp.h

/**
 * An idle peer whose host answers nothing for about `deadPeerMs` ends the connection with ETIMEDOUT. Keepalive only looks
 * at idle connections: for bytes on their way see peerSilenceMs().
 */
export function setKeepalive(fd: number, deadPeerMs: number): void {
  for (const option of keepalive(deadPeerMs)) setOption(fd, option)
}

/** What setKeepalive() sets. */
export function keepalive(deadPeerMs: number): SocketOption[] {
  if (deadPeerMs === 0) return [{ level: SOL_SOCKET, option: SO_KEEPALIVE, value: 0, what: 'SO_KEEPALIVE' }]
  const seconds = Math.floor(deadPeerMs / 1000)
  const interval = clampSeconds(Math.floor(seconds / (KEEPALIVE_PROBES * 2)))
  const idle = clampSeconds(seconds - interval * KEEPALIVE_PROBES)
  return [
    one(SOL_SOCKET, SO_KEEPALIVE, 'SO_KEEPALIVE'),
    { level: IPPROTO_TCP, option: TCP_KEEPIDLE, value: idle, what: 'TCP_KEEPIDLE' },
    { level: IPPROTO_TCP, option: TCP_KEEPINTVL, value: interval, what: 'TCP_KEEPINTVL' },
    { level: IPPROTO_TCP, option: TCP_KEEPCNT, value: KEEPALIVE_PROBES, what: 'TCP_KEEPCNT' },
  ]
}

function clampSeconds(seconds: number): number {
  return Math.min(MAX_KEEPALIVE_SECONDS, Math.max(1, seconds))
}

/**
 * Bytes that stay unacknowledged for `ms` end the connection with ETIMEDOUT (RFC 5482). Mind that Linux also counts the
 * time for which a living peer keeps its window closed (tcp_probe_timer, net/ipv4/tcp_timer.c): a paused download dies.
 */
export function setUserTimeout(fd: number, ms: number): void {
  setNumber(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms, 'TCP_USER_TIMEOUT')
}

const tcpInfo = new Uint32Array(26) // struct tcp_info up to tcpi_total_retrans, linux/tcp.h
const tcpInfoBytes = new Uint8Array(tcpInfo.buffer)
const PROBES_BYTE = 3
const UNACKED_WORD = 6
const LAST_ACK_RECV_WORD = 14
const UNANSWERED_PROBES = 3 // one or two may be under way to a peer that lives

/**
 * Milliseconds for which the peer has acknowledged nothing although bytes, or probes of its closed window, are waiting for
 * that; 0 when nothing is. A peer that lives and does not read answers probes, so it is not silent.
 */
export function peerSilenceMs(fd: number): number {
  numberLength[0] = tcpInfo.byteLength
  if (ffi.getsockopt(fd, IPPROTO_TCP, TCP_INFO, tcpInfo, numberLength) < 0) return 0
  const waits = tcpInfo[UNACKED_WORD]! > 0 || tcpInfoBytes[PROBES_BYTE]! >= UNANSWERED_PROBES
  return waits ? tcpInfo[LAST_ACK_RECV_WORD]! : 0
}

/** Bytes written to the socket that its peer has not acknowledged (SIOCOUTQ, tcp(7)). */
export function unacknowledgedBytes(fd: number): number {
  number[0] = 0
  return ffi.ioctl(fd, SIOCOUTQ, number) < 0 ? 0 : number[0]
}

const LINGER_ZERO = Int32Array.of(1, 0)

/** close() will send RST instead of FIN, and drop what is still unsent (socket(7), SO_LINGER with 0 s). */
export function setResetOnClose(fd: number): void {
  // the result does not matter: the socket is about to be closed, and a dead one cannot be reset
  ffi.setsockopt(fd, SOL_SOCKET, SO_LINGER, LINGER_ZERO, 8)
}

/** Takes the pending error of a socket and clears it; 0 when there is none (socket(7), SO_ERROR). */
export function takeSocketError(fd: number): number {
  number[0] = 0
  numberLength[0] = 4
  return ffi.getsockopt(fd, SOL_SOCKET, SO_ERROR, number, numberLength) < 0 ? lastErrno() : number[0]
}

/**
 * Where the client dialled before REDIRECT or DNAT rewrote it (conntrack's original tuple). Only for sockets of those
 * modes: on a transparent socket the answer may be garbage, getsockname() is right there.
 * Returns undefined when conntrack knows nothing of the connection.
 */
export function originalDestination(fd: number, family: Family): Endpoint | undefined {
  const sockaddr = new Uint8Array(SOCKADDR_BYTES)
  numberLength[0] = family === 4 ? 16 : SOCKADDR_BYTES
  const level = family === 4 ? IPPROTO_IP : IPPROTO_IPV6
  if (ffi.getsockopt(fd, level, SO_ORIGINAL_DST, sockaddr, numberLength) === 0) return decodeSockaddr(sockaddr)
  const errno = lastErrno()
  const unknown = errno === 2 /* ENOENT: not in conntrack */ || errno === ENOPROTOOPT || errno === EINVAL
  if (unknown) return undefined
  throw new SyscallError('getsockopt', errno, `SO_ORIGINAL_DST of fd ${fd}`)
}

/** Datagrams come with where they were sent to: IP_ORIGDSTADDR, IPV6_ORIGDSTADDR (linux/in.h, linux/in6.h). */
export function setReceiveOriginalDst(fd: number, family: Family): void {
  if (family === 4) setNumber(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1, 'IP_RECVORIGDSTADDR')
  else setNumber(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1, 'IPV6_RECVORIGDSTADDR')
}

/** Datagrams come with their TOS or traffic class: DSCP and ECN (ip(7), RFC 3542 §6.5). */
export function setReceiveTos(fd: number, family: Family): void {
  if (family === 4) setNumber(fd, IPPROTO_IP, IP_RECVTOS, 1, 'IP_RECVTOS')
  else setNumber(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1, 'IPV6_RECVTCLASS')
}

/** ICMP errors about datagrams of this socket wait in its error queue (ip(7), IP_RECVERR). */
export function setReceiveErrors(fd: number, family: Family): void {
  if (family === 4) setNumber(fd, IPPROTO_IP, IP_RECVERR, 1, 'IP_RECVERR')
  else setNumber(fd, IPPROTO_IPV6, IPV6_RECVERR, 1, 'IPV6_RECVERR')
}

/** Datagrams of one size may come together (UDP_GRO, Linux 5.0); false where the kernel cannot. */
export function tryReceiveOffload(fd: number): boolean {
  number[0] = 1
  return ffi.setsockopt(fd, IPPROTO_UDP, UDP_GRO, number, 4) === 0
}

let sendsSegments: boolean | undefined

/**
 * Can datagrams of one size be sent together (UDP_SEGMENT, Linux 4.18)? An older kernel would send them as one. `fd`: any UDP
 * socket; the kernel is asked once.
 */
export function canSendSegments(fd: number): boolean {
  numberLength[0] = 4
  sendsSegments ??= ffi.getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, number, numberLength) === 0
  return sendsSegments
}

/** Room for received datagrams that wait; beyond net.core.rmem_max only with CAP_NET_ADMIN. */
export function setReceiveBuffer(fd: number, bytes: number): void {
  number[0] = bytes
  if (ffi.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, number, 4) === 0) return
  setNumber(fd, SOL_SOCKET, SO_RCVBUF, bytes, 'SO_RCVBUF')
}

/** The path MTU towards the peer of a connected socket, in bytes (ip(7), IP_MTU); 0 when unknown. */
export function pathMtu(fd: number, family: Family): number {
  number[0] = 0
  numberLength[0] = 4
  const level = family === 4 ? IPPROTO_IP : IPPROTO_IPV6
  return ffi.getsockopt(fd, level, family === 4 ? IP_MTU : IPV6_MTU, number, numberLength) < 0 ? 0 : number[0]
}

const memoryInfo = new Uint32Array(16)
const MEMINFO_DROPS = 8 // SK_MEMINFO_DROPS, linux/sock_diag.h

/** IPv4 alone: what the socket sends may be fragmented on its way (ip(7), IP_PMTUDISC_DONT). */
export function allowFragments(fd: number): void {
  setNumber(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT, 'IP_PMTUDISC_DONT')
}

/** Datagrams that the socket's full buffer has cost (SO_MEMINFO, Linux 4.12), modulo 2^32. A train of them counts as one. */
export function socketDrops(fd: number): number {
  numberLength[0] = memoryInfo.byteLength
  return ffi.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memoryInfo, numberLength) < 0 ? 0 : memoryInfo[MEMINFO_DROPS]!
}
