import { EMSGSIZE } from './errno.ts'
import { ffi, lastErrno } from './ffi.ts'
import { FixedMemory } from './fixed-memory.ts'
import { MessageHeaders, NAME_BYTES } from './message-headers.ts'

const MSG_ERRQUEUE = 0x2000
const MSG_DONTWAIT = 0x40
const CONTROL_BYTES = 256
const PAYLOAD_BYTES = 128 // of the datagram that it is about; nobody looks at it
// struct cmsghdr, then struct sock_extended_err: linux/errqueue.h
const ERRNO_WORD = 4
const INFO_WORD = 6

let memory: { readonly headers: MessageHeaders; readonly payload: FixedMemory } | undefined

/** An ICMP error about a datagram that a socket with setReceiveErrors() sent. */
export interface QueuedError {
  readonly errno: number
  /** With EMSGSIZE the MTU that a router told; else 0. */
  readonly mtu: number
  /** To whom the datagram went: the words of its sockaddr, valid until the next call. */
  readonly to: Uint32Array
}

/** Takes one error out of a socket's error queue (recvmsg(2), MSG_ERRQUEUE); undefined when there is none. */
export function takeQueuedError(fd: number): QueuedError | undefined {
  memory ??= { headers: new MessageHeaders(1, CONTROL_BYTES), payload: new FixedMemory(PAYLOAD_BYTES) }
  const { headers, payload } = memory
  headers.setIovec(0, payload.address, PAYLOAD_BYTES)
  headers.setPayload(0, 0, 1)
  headers.setNameLength(0, NAME_BYTES)
  headers.setControlLength(0, CONTROL_BYTES)
  if (ffi.recvmsg(fd, headers.addressOf(0), MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
    lastErrno()
    return undefined
  }
  const { words } = headers.controls
  const errno = words[ERRNO_WORD]!
  return { errno, mtu: errno === EMSGSIZE ? words[INFO_WORD]! : 0, to: headers.names.words }
}
