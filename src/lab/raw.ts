import { addressBytes, type Endpoint } from '../net/address.ts'
import { SyscallError } from '../sys/errno.ts'
import { ffi, lastErrno } from '../sys/ffi.ts'
import { AF_INET, encodeSockaddr } from '../sys/sockaddr.ts'
import { closeFd } from '../sys/socket.ts'
import type { Host } from './host.ts'

const SOCK_RAW = 3
const IPPROTO_RAW = 255 // the IP header is ours to write (raw(7))
const IPPROTO_TCP = 6
const IP_HEADER_BYTES = 20
const TCP_HEADER_BYTES = 20

export const FIN = 0x01
export const SYN = 0x02
export const RST = 0x04
export const PSH = 0x08
export const ACK = 0x10
export const URG = 0x20

export interface Segment {
  readonly from: Endpoint
  readonly to: Endpoint
  readonly flags: number
  readonly seq?: number
  readonly ack?: number
  readonly payload?: Uint8Array
}

/** Sends IPv4 TCP segments that no socket stands behind: floods, blind resets, nonsense. */
export class RawSender {
  readonly #fd: number

  constructor(host: Host) {
    this.#fd = host.inside(() => ffi.socket(AF_INET, SOCK_RAW, IPPROTO_RAW))
    if (this.#fd < 0) throw new SyscallError('socket', lastErrno(), 'SOCK_RAW', 'CAP_NET_RAW')
  }

  send(segment: Segment): void {
    const packet = ipv4Packet(segment)
    const sockaddr = encodeSockaddr({ address: segment.to.address, port: 0 })
    ffi.sendto(this.#fd, packet, packet.length, 0, sockaddr, sockaddr.length)
  }

  close(): void {
    closeFd(this.#fd)
  }
}

/** RFC 791 and RFC 9293 headers, with checksums. */
function ipv4Packet(segment: Segment): Uint8Array {
  const payload = segment.payload ?? new Uint8Array(0)
  const packet = new Uint8Array(IP_HEADER_BYTES + TCP_HEADER_BYTES + payload.length)
  const view = new DataView(packet.buffer)
  packet[0] = 0x45 // version 4, header of 5 words
  view.setUint16(2, packet.length)
  packet[8] = 64 // TTL
  packet[9] = IPPROTO_TCP
  packet.set(addressBytes(segment.from.address), 12)
  packet.set(addressBytes(segment.to.address), 16)
  view.setUint16(10, checksum(packet.subarray(0, IP_HEADER_BYTES)))
  const tcp = IP_HEADER_BYTES
  view.setUint16(tcp, segment.from.port)
  view.setUint16(tcp + 2, segment.to.port)
  view.setUint32(tcp + 4, segment.seq ?? 0)
  view.setUint32(tcp + 8, segment.ack ?? 0)
  packet[tcp + 12] = (TCP_HEADER_BYTES / 4) << 4
  packet[tcp + 13] = segment.flags
  view.setUint16(tcp + 14, 65_535) // window
  packet.set(payload, tcp + TCP_HEADER_BYTES)
  const pseudo = new Uint8Array(12 + TCP_HEADER_BYTES + payload.length)
  pseudo.set(packet.subarray(12, 20))
  pseudo[9] = IPPROTO_TCP
  new DataView(pseudo.buffer).setUint16(10, TCP_HEADER_BYTES + payload.length)
  pseudo.set(packet.subarray(tcp), 12)
  view.setUint16(tcp + 16, checksum(pseudo))
  return packet
}

/** The Internet checksum, RFC 1071. */
function checksum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
