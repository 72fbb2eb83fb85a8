import { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { type Endpoint, familyOf } from '../net/address.ts'
import { originalDestination, setResetOnClose } from '../sys/options.ts'
import { closeFd } from '../sys/socket.ts'

/**
 * A connected TCP socket that belongs to you: hand it on (`toNetSocket`, `relayTcp`) or end it (`close`, `reset`),
 * once. It is not read or watched before.
 */
export class TcpSocket {
  #fd: number
  /** Our end. On an intercepted connection: where the client dialled. */
  readonly localAddr: Endpoint
  /** Their end. */
  readonly peerAddr: Endpoint

  constructor(fd: number, localAddr: Endpoint, peerAddr: Endpoint) {
    this.#fd = fd
    this.localAddr = localAddr
    this.peerAddr = peerAddr
  }

  /** Of an accepted socket: the client's address. */
  get clientAddr(): Endpoint {
    return this.peerAddr
  }

  /** Of an accepted socket: where the client dialled, whatever listener it reached. */
  get originalDst(): Endpoint {
    return this.localAddr
  }

  /** False once it was handed on or closed. */
  get isOpen(): boolean {
    return this.#fd >= 0
  }

  /**
   * Where the client dialled, for a connection that REDIRECT or DNAT brought here: conntrack's word (SO_ORIGINAL_DST).
   * Undefined when conntrack knows nothing of it. Do not ask it of a transparent socket: `originalDst` is right there.
   */
  natOriginalDst(): Endpoint | undefined {
    return this.isOpen ? originalDestination(this.#fd, familyOf(this.localAddr.address)) : undefined
  }

  /** The descriptor, which is the caller's from now on. @throws LimpidError LIMPID_USAGE when it was taken before. */
  takeFd(): number {
    if (!this.isOpen) {
      throw new LimpidError('LIMPID_USAGE', 'this TcpSocket was handed on or closed before', {
        cure: 'use each socket once',
      })
    }
    const fd = this.#fd
    this.#fd = -1
    return fd
  }

  /** The connection as Node's own socket, which owns it from now on; half-open connections are allowed. */
  toNetSocket(): Socket {
    return new Socket({ fd: this.takeFd(), readable: true, writable: true, allowHalfOpen: true })
  }

  /** Ends the connection with FIN. */
  close(): void {
    if (this.isOpen) closeFd(this.takeFd())
  }

  /** Ends the connection with RST: the peer sees an error, not an end. */
  reset(): void {
    if (!this.isOpen) return
    setResetOnClose(this.#fd)
    this.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
