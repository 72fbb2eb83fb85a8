import type { Family } from '../net/address.ts'
import { LOW_WORD } from './byte-order.ts'
import { ffi, lastErrno } from './ffi.ts'

// linux/in.h, linux/in6.h, linux/ipv6.h
const IPPROTO_IP = 0
const IP_PKTINFO = 8
const IP_PKTOPTIONS = 9
const IPPROTO_IPV6 = 41
const IPV6_2292PKTOPTIONS = 6
const IPV6_RECVPKTINFO = 49
const IPV6_PKTINFO = 50

const CMSG_HEADER_WORDS = 4 // size_t length, int level, int type: linux/socket.h
const V6_INDEX_WORD = 4 // behind the address, in struct in6_pktinfo

const number = new Int32Array(1)
const length = new Uint32Array(1)
const options = new Uint32Array(64)

/**
 * The index of the interface by which a TCP connection came in; 0 when the kernel does not tell. Linux keeps, with the socket, the one of
 * the segment that ended the handshake (`mc_index` in tcp_v4_syn_recv_sock(), `mcast_oif` in tcp_v6_syn_recv_sock()), and tells it in
 * answer to IP_PKTOPTIONS (ip_sockglue.c) and IPV6_2292PKTOPTIONS (ipv6_sockglue.c) to those that want packet info.
 */
export function inboundInterface(fd: number, family: Family): number {
  if (!receivePacketInfo(fd, family, true)) return 0
  const [level, option] = family === 4 ? [IPPROTO_IP, IP_PKTOPTIONS] : [IPPROTO_IPV6, IPV6_2292PKTOPTIONS]
  length[0] = options.byteLength
  const isTold = ffi.getsockopt(fd, level!, option!, options, length) === 0
  if (!isTold) lastErrno()
  if (family === 6) receivePacketInfo(fd, family, false) // else each segment would be kept to tell it anew
  return isTold ? indexIn(length[0] >>> 2, family) : 0
}

/** Datagrams come with the interface that they came in by (ip(7), IP_PKTINFO; RFC 3542 §6.2), or not any more. */
export function receivePacketInfo(fd: number, family: Family, isWanted: boolean): boolean {
  number[0] = isWanted ? 1 : 0
  const [level, option] = family === 4 ? [IPPROTO_IP, IP_PKTINFO] : [IPPROTO_IPV6, IPV6_RECVPKTINFO]
  return ffi.setsockopt(fd, level!, option!, number, 4) === 0
}

/** In `words` words of control messages. */
function indexIn(words: number, family: Family): number {
  for (let at = 0; at + CMSG_HEADER_WORDS < words; ) {
    const bytes = options[at + LOW_WORD]!
    if (bytes < CMSG_HEADER_WORDS * 4) return 0
    const [level, type] = [options[at + 2], options[at + 3]]
    const data = at + CMSG_HEADER_WORDS
    if (family === 4 && level === IPPROTO_IP && type === IP_PKTINFO) return options[data]!
    if (family === 6 && level === IPPROTO_IPV6 && type === IPV6_PKTINFO) return options[data + V6_INDEX_WORD]!
    at += ((bytes + 7) >>> 3) << 1
  }
  return 0
}
