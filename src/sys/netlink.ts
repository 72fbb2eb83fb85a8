import { EAGAIN, EINTR, ENOBUFS, ENOENT, SyscallError } from './errno.ts'
import { ffi, lastErrno } from './ffi.ts'
import { encodeMessage, messagesIn, type NetlinkMessage, readI32 } from './netlink-message.ts'
import { closeFd, receive } from './socket.ts'

// linux/netlink.h, linux/socket.h
const AF_NETLINK = 16
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOCKADDR_BYTES = 12 // struct sockaddr_nl; port id 0: the kernel chooses one
const SOL_NETLINK = 270
const NETLINK_ADD_MEMBERSHIP = 1
const NETLINK_GET_STRICT_CHK = 12
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const NLM_F_REQUEST = 0x1
const NLM_F_ACK = 0x4
const NLM_F_DUMP_INTR = 0x10
const NLM_F_DUMP = 0x300

export const NETLINK_ROUTE = 0
export const NETLINK_NETFILTER = 12

const BUFFER_BYTES = 32 * 1024 // the kernel never puts more into one datagram (af_netlink.c, netlink_recvmsg)
const MAX_DATAGRAMS = 10_000 // of one answer: 320 MB
const MAX_DUMPS = 5 // a table that changes while it is listed is listed again

const buffer = new Uint8Array(BUFFER_BYTES)

/** A netlink socket of the calling thread's network namespace: to ask the kernel, or to hear of changes. */
export class NetlinkSocket implements Disposable {
  readonly fd: number
  #sequence = 0

  private constructor(fd: number) {
    this.fd = fd
  }

  /** @throws SyscallError EPROTONOSUPPORT when the kernel has no such protocol (nfnetlink is a module). */
  static open(protocol: typeof NETLINK_ROUTE | typeof NETLINK_NETFILTER): NetlinkSocket {
    const fd = ffi.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)
    if (fd < 0) throw new SyscallError('socket', lastErrno(), `AF_NETLINK, protocol ${protocol}`)
    const address = new Uint8Array(SOCKADDR_BYTES)
    new Uint16Array(address.buffer)[0] = AF_NETLINK
    // a socket without an address of its own hears of nothing (af_netlink.c, do_one_broadcast)
    if (ffi.bind(fd, address, SOCKADDR_BYTES) < 0) {
      const errno = lastErrno()
      closeFd(fd)
      throw new SyscallError('bind', errno, 'AF_NETLINK')
    }
    // without it a route dump cannot be narrowed to one table; kernels before 4.20 lack it and send them all
    setOption(fd, NETLINK_GET_STRICT_CHK, 1)
    return new NetlinkSocket(fd)
  }

  /** Asks for the messages of a multicast group from now on. @throws SyscallError LIMPID_CAPABILITY for nftables' group. */
  join(group: number): void {
    if (setOption(this.fd, NETLINK_ADD_MEMBERSHIP, group) === 0) return
    throw new SyscallError('setsockopt', lastErrno(), `NETLINK_ADD_MEMBERSHIP, ${group}`, 'CAP_NET_ADMIN')
  }

  /**
   * Takes up to `datagrams` that wait, each with one message or several.
   * @returns `empty` when nothing waits any more, `lost` when the kernel had to drop some, `more` at the bound.
   */
  drain(datagrams: number, onMessage: (message: NetlinkMessage) => void): 'empty' | 'lost' | 'more' {
    for (let i = 0; i < datagrams; i++) {
      const count = receive(this.fd, buffer, BUFFER_BYTES)
      if (count === -EINTR) continue
      if (count === -ENOBUFS) return 'lost'
      if (count < 0) return 'empty'
      for (const message of messagesIn(buffer.subarray(0, count))) onMessage(message)
    }
    return 'more'
  }

  /**
   * Sends one request and waits for the kernel's acknowledgement. Synchronous: the kernel answers within send(2).
   * @throws SyscallError with the kernel's errno: EEXIST, ENOENT, ENETDOWN … are the caller's to judge.
   */
  change(type: number, flags: number, body: Uint8Array, what: string): void {
    this.#send(type, NLM_F_REQUEST | NLM_F_ACK | flags, body, what)
    this.#answers(what, () => {})
  }

  /** The one message that answers a request, with a body of its own; undefined when the kernel knows no such thing. @throws SyscallError as `change`. */
  ask(type: number, body: Uint8Array, what: string): NetlinkMessage | undefined {
    let answer: NetlinkMessage | undefined
    this.#send(type, NLM_F_REQUEST | NLM_F_ACK, body, what)
    try {
      this.#answers(what, (message) => {
        answer = { ...message, body: message.body.slice() }
      })
    } catch (error) {
      if (error instanceof SyscallError && error.errno === ENOENT) return undefined
      throw error
    }
    return answer
  }

  /** All messages of a dump, with bodies of their own. @throws SyscallError as `change`. */
  dump(type: number, body: Uint8Array, what: string): NetlinkMessage[] {
    for (let attempt = 0; attempt < MAX_DUMPS; attempt++) {
      const found: NetlinkMessage[] = []
      let interrupted = false
      this.#send(type, NLM_F_REQUEST | NLM_F_DUMP, body, what)
      this.#answers(what, (message) => {
        interrupted ||= (message.flags & NLM_F_DUMP_INTR) !== 0
        found.push({ ...message, body: message.body.slice() })
      })
      if (!interrupted) return found
    }
    throw new SyscallError('netlink', EAGAIN, `${what}: it changed ${MAX_DUMPS} times while it was listed`)
  }

  [Symbol.dispose](): void {
    closeFd(this.fd)
  }

  #send(type: number, flags: number, body: Uint8Array, what: string): void {
    this.#sequence = (this.#sequence + 1) >>> 0
    const message = encodeMessage(type, flags, this.#sequence, body)
    if (ffi.send(this.fd, message, message.length, 0) < 0) throw new SyscallError('netlink', lastErrno(), what)
  }

  /** Reads to the end of the answer: an acknowledgement, an error, or the end of a dump. */
  #answers(what: string, onMessage: (message: NetlinkMessage) => void): void {
    for (let i = 0; i < MAX_DATAGRAMS; i++) {
      const count = receive(this.fd, buffer, BUFFER_BYTES)
      if (count === -EINTR) continue
      if (count < 0) throw new SyscallError('netlink', -count, what, 'CAP_NET_ADMIN')
      for (const message of messagesIn(buffer.subarray(0, count))) {
        if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
          onMessage(message)
          continue
        }
        const errno = message.body.length < 4 ? 0 : -readI32(message.body, 0)
        if (errno === 0) return
        throw new SyscallError('netlink', errno, what, 'CAP_NET_ADMIN')
      }
    }
    throw new SyscallError('netlink', ENOBUFS, `${what}: the answer does not end`)
  }
}

function setOption(fd: number, option: number, value: number): number {
  return ffi.setsockopt(fd, SOL_NETLINK, option, Int32Array.of(value), 4)
}
