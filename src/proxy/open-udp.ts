import type { ListenerConfig } from '../config/types.ts'
import { type Endpoint, familyOf } from '../net/address.ts'
import {
  setIpv6Only,
  setMark,
  setReceiveBuffer,
  setReceiveErrors,
  setReceiveOriginalDst,
  setReceiveTos,
  setReuseAddress,
  setReusePort,
  setTransparent,
} from '../sys/options.ts'
import { bindSocket, closeFd, openUdp } from '../sys/socket.ts'
import { arrivesUntouched } from './arrival.ts'
import type { BindUdpOptions } from './bind-udp.ts'
import { listenError } from './listener.ts'

/**
 * Half a second of 100,000 small datagrams each second, of which the kernel counts 768 bytes for each: so long a flood may have the
 * processor before the datagrams of running sessions are lost behind it.
 */
export const LISTENER_BUFFER_BYTES = 32 * 1024 * 1024

export interface BindListenerOptions {
  /** fwmark of the answers that leave by it; 0 for none. */
  readonly mark: number
  /** SO_REUSEPORT: others of this user may bind the same, and share what comes. */
  readonly reusePort: boolean
}

/**
 * A bound socket for a UdpListener.
 * @throws LimpidError LIMPID_LISTEN when the address is taken or not ours, LIMPID_CAPABILITY when it is denied.
 */
export function bindUdpListener(
  endpoint: Endpoint,
  listener: Pick<ListenerConfig, 'intercept'>,
  { mark, reusePort }: BindListenerOptions,
): number {
  const family = familyOf(endpoint.address)
  const fd = openUdp(family)
  try {
    if (family === 6) setIpv6Only(fd)
    if (reusePort) setReusePort(fd)
    if (arrivesUntouched(listener.intercept)) setTransparent(fd, family)
    if (mark !== 0) setMark(fd, mark)
    setReceiveOriginalDst(fd, family)
    setReceiveTos(fd, family)
    setReceiveErrors(fd, family)
    setReceiveBuffer(fd, LISTENER_BUFFER_BYTES)
    bindSocket(fd, endpoint)
    return fd
  } catch (error) {
    closeFd(fd)
    throw listenError(error, endpoint, 'udp')
  }
}

/** A socket for answers from somebody else's address. @throws SyscallError */
export function openReply(endpoint: Endpoint, mark: number): number {
  const family = familyOf(endpoint.address)
  const fd = openUdp(family)
  try {
    setTransparent(fd, family)
    setReuseAddress(fd) // sessions of a client with that address and port may have it as well
    if (mark !== 0) setMark(fd, mark)
    setReceiveErrors(fd, family)
    bindSocket(fd, endpoint)
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/** The socket of bindUdp(). @throws LimpidError LIMPID_LISTEN, LIMPID_CAPABILITY */
export function openBound(endpoint: Endpoint, options: BindUdpOptions): number {
  const family = familyOf(endpoint.address)
  const fd = openUdp(family)
  try {
    if (family === 6) setIpv6Only(fd)
    if (options.reuseAddress === true) setReuseAddress(fd)
    if (options.reusePort === true) setReusePort(fd)
    if (options.transparent === true) setTransparent(fd, family)
    if (options.mark !== undefined) setMark(fd, options.mark)
    setReceiveOriginalDst(fd, family)
    setReceiveTos(fd, family)
    bindSocket(fd, endpoint)
    return fd
  } catch (error) {
    closeFd(fd)
    throw listenError(error, endpoint, 'udp')
  }
}
