import { readFileSync } from 'node:fs'
import { ffi } from './ffi.ts'

const F_SETFD = 2
const FD_CLOEXEC = 1
const UNKNOWN_LIMIT = 1_024 // the traditional soft limit, getrlimit(2)

/** RLIMIT_NOFILE of this process: how many descriptors it may hold. Node raises the soft limit to the hard one at start. */
export function descriptorLimit(): number {
  const line = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
  return line === null ? UNKNOWN_LIMIT : Number(line[1])
}

/** Programs that are started from now on do not inherit it (fcntl(2), FD_CLOEXEC). */
export function setCloseOnExec(fd: number): void {
  ffi.fcntl(fd, F_SETFD, FD_CLOEXEC)
}
