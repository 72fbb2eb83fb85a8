import type { Endpoint, Family } from '../net/address.ts'
import { SyscallError } from '../sys/errno.ts'
import { ffi, lastErrno } from '../sys/ffi.ts'
import { decodeAddress } from '../sys/sockaddr.ts'
import { closeFd } from '../sys/socket.ts'
import type { Host } from './host.ts'

export const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const ETH_P_ALL = 0x0300 // 3 in network order, packet(7)
const FRAME_BYTES = 65_536
const MAX_FRAMES = 100_000
const DRAIN_MS = 2 // the kernel keeps about 200 frames that were not read

const ETHERNET_HEADER_BYTES = 14
const ETHERTYPES: Readonly<Record<number, 'arp' | 'ipv4' | 'ipv6'>> = { 2048: 'ipv4', 2054: 'arp', 34525: 'ipv6' }
const PROTOCOLS: Readonly<Record<number, 'tcp' | 'udp' | 'icmp'>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmp' }
const UDP_HEADER_BYTES = 8
const ICMP_UNREACHABLE = 3 // RFC 792
const LAST_ICMP6_ERROR = 127 // RFC 4443 §2.1

/** The head of a packet: of TCP its sequence number, too. */
export interface Quoted {
  readonly source: string
  readonly destination: string
  readonly sourcePort: number
  readonly destinationPort: number
  readonly protocol: 'tcp' | 'udp' | 'icmp' | 'other'
  readonly sequence: number
}

/** What was read of a frame. MAC addresses are written `02:00:00:00:00:01`. */
export interface Frame {
  readonly from: string
  readonly to: string
  readonly kind: 'arp' | 'ipv4' | 'ipv6' | 'other'
  /** Of IP packets. */
  readonly protocol?: 'tcp' | 'udp' | 'icmp' | 'other'
  readonly source?: string
  readonly destination?: string
  /** TTL or hop limit. */
  readonly hops?: number
  /** Of TCP and UDP. */
  readonly sourcePort?: number
  readonly destinationPort?: number
  /** Of UDP: bytes behind its header. */
  readonly payloadBytes?: number
  /** Of ICMPv6: 135 and 136 are neighbour discovery (RFC 4861). */
  readonly icmpType?: number
  readonly icmpCode?: number
  /** Of ICMP errors: the head of the packet that it is about. */
  readonly quoted?: Quoted
}

/** Hears all frames of a host, both received and sent: those of one interface, or of all. The caller closes it. Needs CAP_NET_RAW. */
export class FrameCapture implements Disposable {
  readonly #fd: number
  readonly #timer: NodeJS.Timeout
  readonly #bytes = Buffer.alloc(FRAME_BYTES)
  readonly #frames: Frame[] = []

  constructor(host: Host, interfaceIndex = 0) {
    this.#fd = openPacketSocket(host)
    if (interfaceIndex !== 0) bindToInterface(this.#fd, interfaceIndex)
    this.#timer = setInterval(() => this.#drain(), DRAIN_MS)
  }

  /** Those heard so far; the first 100,000. */
  frames(): readonly Frame[] {
    this.#drain()
    return this.#frames
  }

  #drain(): void {
    for (;;) {
      const length = ffi.recv(this.#fd, this.#bytes, FRAME_BYTES, 0)
      if (length < ETHERNET_HEADER_BYTES) return
      if (this.#frames.length < MAX_FRAMES) this.#frames.push(parseFrame(this.#bytes.subarray(0, length)))
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    closeFd(this.#fd)
  }
}

/** A UDP datagram as `tcpdump -nq` writes it: `IP 1.2.3.4.5300 > 198.41.0.4.53: UDP, length 24`. */
export function datagramLine(from: Endpoint, to: Endpoint, payloadBytes: number): string {
  const name = from.address.includes(':') ? 'IP6' : 'IP'
  return `${name} ${from.address}.${from.port} > ${to.address}.${to.port}: UDP, length ${payloadBytes}`
}

/** The line of a captured datagram; undefined for all that is none. */
export function lineOf({ source, sourcePort, destination, destinationPort, payloadBytes }: Frame): string | undefined {
  if (payloadBytes === undefined) return undefined
  return datagramLine(
    { address: source!, port: sourcePort! },
    { address: destination!, port: destinationPort! },
    payloadBytes,
  )
}

/** A socket for whole Ethernet frames (packet(7)) on a host, which the caller owns. */
export function openPacketSocket(host: Host): number {
  const fd = host.inside(() => ffi.socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, ETH_P_ALL))
  if (fd < 0) throw new SyscallError('socket', lastErrno(), 'AF_PACKET', 'CAP_NET_RAW')
  return fd
}

/** struct sockaddr_ll of packet(7). */
export function linkAddress(interfaceIndex: number): Buffer {
  const sockaddr = Buffer.alloc(20)
  new Uint16Array(sockaddr.buffer, sockaddr.byteOffset, 2).set([AF_PACKET, ETH_P_ALL])
  new Int32Array(sockaddr.buffer, sockaddr.byteOffset + 4, 1)[0] = interfaceIndex
  return sockaddr
}

function bindToInterface(fd: number, interfaceIndex: number): void {
  const sockaddr = linkAddress(interfaceIndex)
  if (ffi.bind(fd, sockaddr, sockaddr.length) === 0) return
  const errno = lastErrno()
  closeFd(fd)
  throw new SyscallError('bind', errno, `AF_PACKET, interface ${interfaceIndex}`)
}

export function parseFrame(bytes: Buffer): Frame {
  const kind: Frame['kind'] = ETHERTYPES[bytes.readUInt16BE(12)] ?? 'other'
  const ends: Frame = { from: macText(bytes.subarray(6, 12)), to: macText(bytes.subarray(0, 6)), kind }
  const packet = bytes.subarray(ETHERNET_HEADER_BYTES)
  if (kind === 'ipv4') {
    const header = (packet[0]! & 0x0f) * 4
    const [source, destination] = [decodeAddress(packet.subarray(12, 16)), decodeAddress(packet.subarray(16, 20))]
    return { ...ends, source, destination, hops: packet[8]!, ...upperLayer(packet[9]!, packet.subarray(header), 4) }
  }
  if (kind === 'ipv6') {
    const [source, destination] = [decodeAddress(packet.subarray(8, 24)), decodeAddress(packet.subarray(24, 40))]
    return { ...ends, source, destination, hops: packet[7]!, ...upperLayer(packet[6]!, packet.subarray(40), 6) }
  }
  return ends
}

function upperLayer(number: number, bytes: Buffer, family: Family): Partial<Frame> {
  const protocol = PROTOCOLS[number] ?? 'other'
  if (protocol === 'other') return { protocol }
  if (protocol === 'icmp') {
    const [icmpType, icmpCode] = bytes as unknown as [number, number]
    const isError = family === 4 ? icmpType === ICMP_UNREACHABLE : icmpType <= LAST_ICMP6_ERROR
    return { protocol, icmpType, icmpCode, ...(isError ? { quoted: quotedIn(bytes.subarray(8), family) } : {}) }
  }
  const ports = { sourcePort: bytes.readUInt16BE(0), destinationPort: bytes.readUInt16BE(2) }
  if (protocol === 'tcp') return { protocol, ...ports }
  return { protocol, ...ports, payloadBytes: bytes.readUInt16BE(4) - UDP_HEADER_BYTES }
}

function quotedIn(packet: Buffer, family: Family): Quoted {
  const [addresses, bytes, upper] = family === 4 ? [12, 4, (packet[0]! & 0x0f) * 4] : [8, 16, 40]
  return {
    source: decodeAddress(packet.subarray(addresses, addresses + bytes)),
    destination: decodeAddress(packet.subarray(addresses + bytes, addresses + bytes * 2)),
    protocol: PROTOCOLS[packet[family === 4 ? 9 : 6]!] ?? 'other',
    sourcePort: packet.readUInt16BE(upper),
    destinationPort: packet.readUInt16BE(upper + 2),
    sequence: packet.readUInt32BE(upper + 4),
  }
}

function macText(bytes: Buffer): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}
