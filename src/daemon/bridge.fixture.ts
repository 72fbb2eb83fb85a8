import type { Host } from '../lab/host.ts'
import { addressBytes, type Endpoint } from '../net/address.ts'
import { SyscallError } from '../sys/errno.ts'
import { ffi, lastErrno } from '../sys/ffi.ts'
import { closeFd } from '../sys/socket.ts'

const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const ETH_P_ALL = 0x0300 // 3 in network order, packet(7)
const FRAME_BYTES = 65_536
const DRAIN_MS = 2 // the kernel keeps about 200 frames that were not read

const ETHERNET_HEADER_BYTES = 14
const ETHERTYPES: Readonly<Record<number, 'arp' | 'ipv4' | 'ipv6'>> = { 2048: 'ipv4', 2054: 'arp', 34525: 'ipv6' }
const PROTOCOLS: Readonly<Record<number, 'tcp' | 'udp' | 'icmp'>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmp' }

/** What a test asks of a frame. MAC addresses are written `02:00:00:00:00:01`, IP addresses as hexText() writes them. */
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
  readonly destinationPort?: number
  /** Of ICMPv6: 135 and 136 are neighbour discovery (RFC 4861). */
  readonly icmpType?: number
}

/** Hears all frames of a host, both received and sent. The caller closes it. */
export class FrameCapture implements Disposable {
  readonly #fd: number
  readonly #timer: NodeJS.Timeout
  readonly #bytes = Buffer.alloc(FRAME_BYTES)
  readonly #frames: Frame[] = []

  constructor(host: Host) {
    this.#fd = openPacketSocket(host)
    this.#timer = setInterval(() => this.#drain(), DRAIN_MS)
  }

  /** Those heard so far. */
  frames(): readonly Frame[] {
    this.#drain()
    return this.#frames
  }

  #drain(): void {
    for (;;) {
      const length = ffi.recv(this.#fd, this.#bytes, FRAME_BYTES, 0)
      if (length < ETHERNET_HEADER_BYTES) return
      this.#frames.push(parseFrame(this.#bytes.subarray(0, length)))
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    closeFd(this.#fd)
  }
}

/** The bytes of an IP address as Frame has them. */
export function hexText(address: string): string {
  return Buffer.from(addressBytes(address)).toString('hex')
}

/** Sends a whole Ethernet frame by an interface of the host. */
export function sendFrame(host: Host, interfaceIndex: number, frame: Buffer): void {
  const fd = openPacketSocket(host)
  const sockaddr = Buffer.alloc(20) // struct sockaddr_ll, packet(7)
  sockaddr.writeUInt16LE(AF_PACKET, 0)
  sockaddr.writeInt32LE(interfaceIndex, 4)
  const sent = ffi.sendto(fd, frame, frame.length, 0, sockaddr, sockaddr.length)
  const errno = lastErrno()
  closeFd(fd)
  if (sent < 0) throw new SyscallError('sendto', errno, 'AF_PACKET')
}

/** A SYN in a tagged frame (IEEE 802.1Q); its checksums are those of nobody. */
export function taggedSyn(options: {
  readonly from: string
  readonly to: string
  readonly vlan: number
  readonly source: Endpoint
  readonly destination: Endpoint
}): Buffer {
  const ethernet = Buffer.concat([
    macBytes(options.to),
    macBytes(options.from),
    Buffer.from([0x81, 0, 0, options.vlan]),
  ])
  const ip = Buffer.alloc(20)
  ip[0] = 0x45
  ip.writeUInt16BE(40, 2)
  ip[8] = 64
  ip[9] = 6
  ip.set(addressBytes(options.source.address), 12)
  ip.set(addressBytes(options.destination.address), 16)
  const tcp = Buffer.alloc(20)
  tcp.writeUInt16BE(options.source.port, 0)
  tcp.writeUInt16BE(options.destination.port, 2)
  tcp[12] = 0x50
  tcp[13] = 0x02 // SYN
  return Buffer.concat([ethernet, Buffer.from([0x08, 0x00]), ip, tcp])
}

/** Sends one datagram from a socket of its own, which is closed at once. */
export function sendDatagram(host: Host, domain: number, sockaddr: Uint8Array): void {
  const fd = host.inside(() => ffi.socket(domain, 2, 0)) // SOCK_DGRAM
  if (fd < 0) throw new SyscallError('socket', lastErrno(), 'SOCK_DGRAM')
  ffi.sendto(fd, Buffer.from('datagram'), 8, 0, sockaddr, sockaddr.length)
  closeFd(fd)
}

function openPacketSocket(host: Host): number {
  const fd = host.inside(() => ffi.socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, ETH_P_ALL))
  if (fd < 0) throw new SyscallError('socket', lastErrno(), 'AF_PACKET', 'CAP_NET_RAW')
  return fd
}

function parseFrame(bytes: Buffer): Frame {
  const kind: Frame['kind'] = ETHERTYPES[bytes.readUInt16BE(12)] ?? 'other'
  const ends: Frame = { from: macText(bytes.subarray(6, 12)), to: macText(bytes.subarray(0, 6)), kind }
  const packet = bytes.subarray(ETHERNET_HEADER_BYTES)
  if (kind === 'ipv4') {
    const header = (packet[0]! & 0x0f) * 4
    const [source, destination] = [packet.toString('hex', 12, 16), packet.toString('hex', 16, 20)]
    return { ...ends, source, destination, hops: packet[8]!, ...upperLayer(packet[9]!, packet.subarray(header)) }
  }
  if (kind === 'ipv6') {
    const [source, destination] = [packet.toString('hex', 8, 24), packet.toString('hex', 24, 40)]
    return { ...ends, source, destination, hops: packet[7]!, ...upperLayer(packet[6]!, packet.subarray(40)) }
  }
  return ends
}

function upperLayer(number: number, bytes: Buffer): Pick<Frame, 'protocol' | 'destinationPort' | 'icmpType'> {
  const protocol = PROTOCOLS[number] ?? 'other'
  if (protocol === 'icmp') return { protocol, icmpType: bytes[0]! }
  return protocol === 'other' ? { protocol } : { protocol, destinationPort: bytes.readUInt16BE(2) }
}

function macText(bytes: Buffer): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}

function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex')
}
