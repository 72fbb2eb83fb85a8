import { linkAddress, openPacketSocket } from '../lab/frame-capture.ts'
import type { Host } from '../lab/host.ts'
import { addressBytes, type Endpoint } from '../net/address.ts'
import { SyscallError } from '../sys/errno.ts'
import { ffi, lastErrno } from '../sys/ffi.ts'
import { closeFd } from '../sys/socket.ts'

/** Sends a whole Ethernet frame by an interface of the host. */
export function sendFrame(host: Host, interfaceIndex: number, frame: Buffer): void {
  const fd = openPacketSocket(host)
  const sockaddr = linkAddress(interfaceIndex)
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

function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex')
}
