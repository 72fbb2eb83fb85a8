import { constants } from 'node:os'
import { LimpidError } from '../errors.ts'

const NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, number]) => [number, name]))
NAMES.set(constants.errno.EAGAIN, 'EAGAIN') // EWOULDBLOCK is the same number on Linux

export const EPERM = constants.errno.EPERM
export const ENOENT = constants.errno.ENOENT
export const EIO = constants.errno.EIO
export const EMSGSIZE = constants.errno.EMSGSIZE
export const EINTR = constants.errno.EINTR
export const EEXIST = constants.errno.EEXIST
export const EAGAIN = constants.errno.EAGAIN
export const EACCES = constants.errno.EACCES
export const ENFILE = constants.errno.ENFILE
export const EMFILE = constants.errno.EMFILE
export const EPIPE = constants.errno.EPIPE
export const EINVAL = constants.errno.EINVAL
export const EADDRINUSE = constants.errno.EADDRINUSE
export const EADDRNOTAVAIL = constants.errno.EADDRNOTAVAIL
export const ENETUNREACH = constants.errno.ENETUNREACH
export const EHOSTUNREACH = constants.errno.EHOSTUNREACH
export const ECONNABORTED = constants.errno.ECONNABORTED
export const ECONNRESET = constants.errno.ECONNRESET
export const ECONNREFUSED = constants.errno.ECONNREFUSED
export const ENOBUFS = constants.errno.ENOBUFS
export const ENOMEM = constants.errno.ENOMEM
export const ETIMEDOUT = constants.errno.ETIMEDOUT
export const EINPROGRESS = constants.errno.EINPROGRESS
export const ENOPROTOOPT = constants.errno.ENOPROTOOPT
export const EOPNOTSUPP = constants.errno.EOPNOTSUPP
export const ENETDOWN = constants.errno.ENETDOWN

/** `EADDRINUSE` for 98; `errno 999` for a number that has no name. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`
}

/** A system call that failed. `code` is LIMPID_CAPABILITY where a capability is what was missing, else LIMPID_SYSCALL. */
export class SyscallError extends LimpidError {
  readonly call: string
  readonly errno: number

  /** `detail`: what the call was about, with its addresses: `10.0.3.1:0 as the source towards 10.0.4.2:80`. */
  constructor(call: string, errno: number, detail: string, capability?: string) {
    const denied = capability !== undefined && (errno === EPERM || errno === EACCES)
    super(
      denied ? 'LIMPID_CAPABILITY' : 'LIMPID_SYSCALL',
      `${call}(${detail}) failed: ${errnoName(errno)}${denied ? `: ${capability} is missing` : ''}`,
      denied ? { cure: `run as root or with ${capability} as an ambient capability` } : {},
    )
    this.call = call
    this.errno = errno
  }
}
