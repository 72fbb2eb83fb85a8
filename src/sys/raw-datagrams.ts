import type { Family } from '../net/address.ts'
import { ffi, lastErrno } from './ffi.ts'
import { FixedMemory } from './fixed-memory.ts'
import { internetChecksum } from './internet-checksum.ts'
import { allowFragments, setMark, setTransparent } from './options.ts'
import { SendQueue } from './send-queue.ts'
import { bindSocket, closeFd, openRaw } from './socket.ts'

const IPPROTO_UDP = 17
const UDP_HEADER_BYTES = 8
const IPPROTO_TCP = 6
const TCP_HEADER_BYTES = 20
const QUOTED_BYTES = 8 // behind the IP header: the ports, and of TCP the sequence number, by which the client checks it
const NO_CHECKSUM = 0xffff // a sum of 0 is written so: 0 means that there is none (RFC 768)

/** Nobody sends to these: documentation (RFC 5737), discard (RFC 6666). */
const NOBODY = { 4: { address: '192.0.2.1', port: 0 }, 6: { address: '100::1', port: 0 } } as const

/**
 * Sends UDP datagrams from any address and port without a UDP socket there: for those that another process has. A raw socket of
 * protocol UDP (raw(7)): the kernel makes the IP header, fragments and routes. Needs CAP_NET_RAW.
 */
export class RawDatagrams {
  readonly family: Family
  readonly #fd: number
  readonly #queue = new SendQueue()
  readonly #header = new FixedMemory(UDP_HEADER_BYTES)

  /** `mark`: fwmark of what it sends; 0 for none. @throws SyscallError LIMPID_CAPABILITY */
  constructor(family: Family, mark: number) {
    this.family = family
    this.#fd = openRaw(family, IPPROTO_UDP)
    try {
      setTransparent(this.#fd, family)
      if (mark !== 0) setMark(this.#fd, mark)
      if (family === 4) allowFragments(this.#fd) // no ICMP error finds this socket
      // so it gets no copy of every datagram that this host receives (raw_v4_match, net/ipv4/raw.c)
      bindSocket(this.#fd, NOBODY[family])
    } catch (error) {
      closeFd(this.#fd)
      throw error
    }
  }

  /**
   * Sends one datagram of `bytes`, which lie at `address`. `to`, `from`: words of sockaddrs from `toAt`, `fromAt` on.
   * @returns 0, or the errno.
   */
  send(
    bytes: Uint8Array,
    address: number,
    to: Uint32Array,
    toAt: number,
    from: Uint32Array,
    fromAt: number,
    tos: number,
  ): number {
    this.#writeHeader(bytes, to, toAt, from, fromAt)
    const queue = this.#queue
    queue.clear()
    queue.begin()
    queue.to(this.family, withoutPort(to, toAt), 0)
    queue.from(this.family, from, fromAt)
    if (tos !== 0) queue.tos(this.family, tos)
    queue.piece(this.#header.address, UDP_HEADER_BYTES)
    queue.piece(address, bytes.length)
    queue.end()
    const sent = queue.send(this.#fd, 0)
    return sent < 0 ? -sent : 0
  }

  close(): void {
    closeFd(this.#fd)
  }

  #writeHeader(bytes: Uint8Array, to: Uint32Array, toAt: number, from: Uint32Array, fromAt: number): void {
    const header = this.#header.bytes
    const source = new Uint8Array(from.buffer, from.byteOffset + fromAt * 4, 28)
    const destination = new Uint8Array(to.buffer, to.byteOffset + toAt * 4, 28)
    const length = UDP_HEADER_BYTES + bytes.length
    header.set(source.subarray(2, 4), 0)
    header.set(destination.subarray(2, 4), 2)
    header[4] = length >> 8
    header[5] = length & 0xff
    header[6] = 0
    header[7] = 0
    const [begin, end] = this.family === 4 ? [4, 8] : [8, 24] // sin_addr, sin6_addr
    const pieces = [
      source.subarray(begin, end),
      destination.subarray(begin, end),
      header.subarray(0, UDP_HEADER_BYTES),
      bytes,
    ]
    const sum = internetChecksum(pieces, IPPROTO_UDP + length) || NO_CHECKSUM
    header[6] = sum >> 8
    header[7] = sum & 0xff
  }
}

const nameless = new Uint32Array(8)
const namelessBytes = new Uint8Array(nameless.buffer)

/** IPv6 raw sockets take a port for the protocol (rawv6_sendmsg, net/ipv6/raw.c). */
function withoutPort(words: Uint32Array, at: number): Uint32Array {
  for (let i = 0; i < nameless.length; i++) nameless[i] = words[at + i]!
  namelessBytes[2] = 0
  namelessBytes[3] = 0
  return nameless
}

/** What a message quotes of the client's packet: a datagram with so many bytes, or a TCP segment with that sequence number. */
export type Quoted = { readonly datagram: number } | { readonly segment: number }

/** Messages of ICMP errors that a host or router would send about a packet of a client. Needs CAP_NET_RAW. */
export class IcmpErrors {
  readonly family: Family
  readonly #fd: number
  readonly #queue = new SendQueue()
  readonly #message = new FixedMemory(128)

  /** @throws SyscallError LIMPID_CAPABILITY */
  constructor(family: Family, mark: number) {
    this.family = family
    this.#fd = openRaw(family, family === 4 ? 1 : 58)
    try {
      setTransparent(this.#fd, family)
      if (mark !== 0) setMark(this.#fd, mark)
      ignoreAll(this.#fd, family)
    } catch (error) {
      closeFd(this.#fd)
      throw error
    }
  }

  /**
   * Tells `client` about the packet that it sent to `dst`, as if `dst` did.
   * @returns 0, or the errno.
   */
  send(error: IcmpError, client: Uint32Array, dst: Uint32Array, quoted: Quoted): number {
    const length = this.#write(error, client, dst, quoted)
    const queue = this.#queue
    queue.clear()
    queue.begin()
    queue.to(this.family, withoutPort(client, 0), 0)
    queue.from(this.family, dst, 0)
    queue.piece(this.#message.address, length)
    queue.end()
    const sent = queue.send(this.#fd, 0)
    return sent < 0 ? -sent : 0
  }

  close(): void {
    closeFd(this.#fd)
  }

  /** RFC 792, RFC 1191 §4; RFC 4443 §3: eight bytes, then the head of the packet: its IP header and eight bytes. */
  #write(error: IcmpError, client: Uint32Array, dst: Uint32Array, quoted: Quoted): number {
    const v4 = this.family === 4
    const message = this.#message.bytes.fill(0)
    const [type, code] = (v4 ? CODES_4 : CODES_6)[error.kind]
    message[0] = type
    message[1] = code
    const view = new DataView(message.buffer)
    if (error.kind === 'too-big') {
      if (v4) view.setUint16(6, Math.min(error.mtu, 0xffff))
      else view.setUint32(4, error.mtu)
    }
    const source = new Uint8Array(client.buffer, client.byteOffset, 28)
    const destination = new Uint8Array(dst.buffer, dst.byteOffset, 28)
    const isTcp = 'segment' in quoted
    const protocol = isTcp ? IPPROTO_TCP : IPPROTO_UDP
    const upperLength = isTcp ? TCP_HEADER_BYTES : Math.min(0xffff, UDP_HEADER_BYTES + quoted.datagram)
    const at = 8
    if (v4) {
      message.set([0x45, 0], at)
      view.setUint16(at + 2, Math.min(0xffff, 20 + upperLength))
      message.set([0x40, 0, 64, protocol], at + 6) // don't fragment; TTL
      message.set(source.subarray(4, 8), at + 12)
      message.set(destination.subarray(4, 8), at + 16)
      view.setUint16(at + 10, internetChecksum([message.subarray(at, at + 20)]))
    } else {
      message[at] = 0x60
      view.setUint16(at + 4, upperLength)
      message.set([protocol, 64], at + 6)
      message.set(source.subarray(8, 24), at + 8)
      message.set(destination.subarray(8, 24), at + 24)
    }
    const upperAt = at + (v4 ? 20 : 40)
    message.set(source.subarray(2, 4), upperAt)
    message.set(destination.subarray(2, 4), upperAt + 2)
    if (isTcp) view.setUint32(upperAt + 4, quoted.segment)
    else view.setUint16(upperAt + 4, upperLength)
    const length = upperAt + QUOTED_BYTES
    // of ICMPv6 the kernel makes the checksum (RFC 3542 §3.1)
    if (v4) view.setUint16(2, internetChecksum([message.subarray(0, length)]))
    return length
  }
}

export type IcmpError =
  | { readonly kind: 'port-unreachable' | 'host-unreachable' | 'prohibited' }
  | { readonly kind: 'too-big'; readonly mtu: number }

/** Type and code. */
const CODES_4: Readonly<Record<IcmpError['kind'], readonly [number, number]>> = {
  'port-unreachable': [3, 3],
  'host-unreachable': [3, 1],
  prohibited: [3, 13],
  'too-big': [3, 4],
}
const CODES_6: Readonly<Record<IcmpError['kind'], readonly [number, number]>> = {
  'port-unreachable': [1, 4],
  'host-unreachable': [1, 3],
  prohibited: [1, 1],
  'too-big': [2, 0],
}

/** The socket gets no ICMP message: in ICMP_FILTER (raw(7)) and in Linux's ICMP6_FILTER (linux/icmpv6.h) a bit that is set blocks a type. */
function ignoreAll(fd: number, family: Family): void {
  const everything = new Uint32Array(32).fill(0xffff_ffff)
  const [level, option, bytes] = family === 4 ? [255, 1, 4] : [58, 1, 32]
  if (ffi.setsockopt(fd, level!, option!, everything, bytes!) < 0) lastErrno() // it would only cost some memory
}
