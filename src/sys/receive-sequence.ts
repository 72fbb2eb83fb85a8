import { ffi, lastErrno } from './ffi.ts'

// linux/tcp.h
const IPPROTO_TCP = 6
const TCP_REPAIR = 19
const TCP_REPAIR_QUEUE = 20
const TCP_QUEUE_SEQ = 21
const RECEIVE_QUEUE = 1 // TCP_RECV_QUEUE
const REPAIR_ON = 1
const REPAIR_OFF = 0
const REPAIR_OFF_SILENTLY = -1 // TCP_REPAIR_OFF_NO_WP, Linux 4.19: no window probe is sent

const number = new Int32Array(1)
const numberLength = new Uint32Array(1)

/**
 * The sequence number that the peer's next byte will have (RCV.NXT, RFC 9293 §3.3.1). The kernel tells it to who may repair the connection:
 * undefined without CAP_NET_ADMIN.
 */
export function receiveSequence(fd: number): number | undefined {
  if (!set(fd, TCP_REPAIR, REPAIR_ON)) return undefined
  numberLength[0] = 4
  const isTold =
    set(fd, TCP_REPAIR_QUEUE, RECEIVE_QUEUE) &&
    ffi.getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, number, numberLength) === 0
  const sequence = isTold ? number[0]! >>> 0 : undefined
  // a connection under repair is closed without a word to its peer
  if (!set(fd, TCP_REPAIR, REPAIR_OFF_SILENTLY)) set(fd, TCP_REPAIR, REPAIR_OFF)
  return sequence
}

function set(fd: number, option: number, value: number): boolean {
  number[0] = value
  if (ffi.setsockopt(fd, IPPROTO_TCP, option, number, 4) === 0) return true
  lastErrno()
  return false
}
