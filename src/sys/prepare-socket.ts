import type { Endpoint } from '../net/address.ts'
import { EINVAL, EOPNOTSUPP } from './errno.ts'
import { FixedMemory } from './fixed-memory.ts'
import { type SocketOption, setOption } from './options.ts'
import type { Ring } from './ring.ts'
import { SOCKADDR_BYTES, sharedSockaddr } from './sockaddr.ts'
import { bindSocket } from './socket.ts'

/**
 * Sets options, in their order, and then binds: with one system call where there is a ring. What that cannot do is done by calls of their
 * own, which say what is wrong.
 * @throws SyscallError as setOption() and bindSocket().
 */
export function prepareSocket(fd: number, options: readonly SocketOption[], bind?: Endpoint, ring?: Ring): void {
  if (ring !== undefined && ringIsAble && prepareAtOnce(fd, options, bind, ring)) return
  for (const option of options) setOption(fd, option)
  if (bind !== undefined) bindSocket(fd, bind)
}

/** Before Linux 6.11 rings can do less, and would be asked in vain. */
let ringIsAble = true

const sockaddr = new FixedMemory(SOCKADDR_BYTES)

function prepareAtOnce(fd: number, options: readonly SocketOption[], bind: Endpoint | undefined, ring: Ring): boolean {
  for (const { level, option, value } of options) ring.setOption(fd, level, option, value)
  if (bind !== undefined) {
    const bytes = sharedSockaddr(bind)
    sockaddr.bytes.set(bytes)
    ring.bind(fd, sockaddr.address, bytes.length)
  }
  const count = options.length + (bind === undefined ? 0 : 1)
  ring.run()
  for (let i = 0; i < count; i++) {
    const result = ring.results[i]!
    if (result >= 0) continue
    if (result === -EOPNOTSUPP || result === -EINVAL) ringIsAble = false
    return false
  }
  return true
}
