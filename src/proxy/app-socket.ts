import { Socket } from 'node:net'
import { setResetOnClose } from '../sys/options.ts'

/**
 * A connected descriptor as Node's own socket, which owns it from now on; half-open connections are allowed. Where it is destroyed with an
 * error, as stream.pipeline() does, its peer sees a reset: what it had until then must not be taken for all.
 */
export function socketOf(fd: number, more: object = {}): Socket {
  const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true, ...more })
  const destroy = socket._destroy.bind(socket)
  socket._destroy = (error, callback) => {
    if (error) setResetOnClose(fd)
    destroy(error, callback)
  }
  return socket
}

/**
 * A client's socket of which an app may have to wait until its first bytes have been looked at: until release() nothing is read from the
 * descriptor, whatever the app does with the socket; it can write.
 */
export class HeldSocket {
  readonly socket: Socket
  #isHeld: boolean
  #isWanted = false

  /** Takes `fd`. */
  constructor(fd: number, isHeld: boolean) {
    this.#isHeld = isHeld
    this.socket = socketOf(fd, { manualStart: isHeld }) // lib/net.js of Node: its constructor reads nothing then
    if (!isHeld) return
    this.socket._read = () => {
      this.#isWanted = true
    }
  }

  get isHeld(): boolean {
    return this.#isHeld
  }

  release(): void {
    if (!this.#isHeld) return
    this.#isHeld = false
    delete (this.socket as Partial<Pick<Socket, '_read'>>)._read
    if (this.#isWanted && !this.socket.destroyed) this.socket._read(0)
  }
}
