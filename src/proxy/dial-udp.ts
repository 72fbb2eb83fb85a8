import { type Endpoint, familyOf } from '../net/address.ts'
import { EADDRINUSE, EADDRNOTAVAIL, SyscallError } from '../sys/errno.ts'
import { setMark, setReceiveTos, setReuseAddress, setTransparent, tryReceiveOffload } from '../sys/options.ts'
import { bindSocket, closeFd, openUdp, startConnect } from '../sys/socket.ts'
import type { SourceUsed } from './record.ts'
import type { DialSource } from './source.ts'

export interface DialUdpOptions {
  readonly source: DialSource
  /** fwmark of our packets, so that the rules leave them alone, and bring the answers here; 0 for none. */
  readonly mark: number
  /** Many datagrams are to be expected: three options that a session of one question does without. */
  readonly isStream: boolean
}

export type DialledUdp = { readonly fd: number; readonly source: SourceUsed } | { readonly errno: number }

/** Opens the upstream of a session: a socket that is bound to its source and connected. `client-port` falls back to `client`. */
export function dialUdp(to: Endpoint, options: DialUdpOptions): DialledUdp {
  const { kind, bind } = options.source
  const result = openConnected(to, options, bind)
  if (result >= 0) return { fd: result, source: kind }
  const isTaken = result === -EADDRINUSE || result === -EADDRNOTAVAIL
  if (kind !== 'client-port' || !isTaken) return { errno: -result }
  const other = openConnected(to, options, { address: bind!.address, port: 0 })
  return other >= 0 ? { fd: other, source: 'client' } : { errno: -other }
}

/** A descriptor, or the negative errno. */
function openConnected(to: Endpoint, { mark, isStream }: DialUdpOptions, bind: Endpoint | undefined): number {
  let fd = -1
  try {
    const family = familyOf(to.address)
    fd = openUdp(family)
    if (mark !== 0) setMark(fd, mark)
    if (bind !== undefined) {
      setTransparent(fd, family)
      // several sessions of one client have its port; with port 0 the kernel would take a port for free that is used
      if (bind.port !== 0) setReuseAddress(fd)
      bindSocket(fd, bind)
    }
    if (isStream) {
      setReceiveTos(fd, family)
      tryReceiveOffload(fd)
    }
  } catch (error) {
    if (fd >= 0) closeFd(fd)
    if (error instanceof SyscallError) return -error.errno
    throw error
  }
  const errno = startConnect(fd, to)
  if (errno === 0) return fd
  closeFd(fd)
  return -errno
}
