import { closeSync, openSync } from 'node:fs'
import { SyscallError } from './errno.ts'
import { ffi, lastErrno } from './ffi.ts'

const CLONE_NEWNET = 0x4000_0000

/** The network namespace of the calling thread, as a descriptor that keeps it alive. The caller closes it. */
export function openNetNamespace(): number {
  return openSync('/proc/thread-self/ns/net', 'r')
}

/** Makes a new, empty network namespace, and returns a descriptor that keeps it alive; the thread stays where it was. */
export function makeNetNamespace(): number {
  const home = openNetNamespace()
  try {
    if (ffi.unshare(CLONE_NEWNET) < 0) {
      throw new SyscallError('unshare', lastErrno(), 'CLONE_NEWNET', 'CAP_SYS_ADMIN')
    }
    const made = openNetNamespace()
    enterNetNamespace(home)
    return made
  } finally {
    closeSync(home)
  }
}

/**
 * Moves the calling thread into a network namespace. Sockets that it opens and processes that it starts from now on
 * belong there; those that exist stay where they are (setns(2)).
 */
export function enterNetNamespace(fd: number): void {
  if (ffi.setns(fd, CLONE_NEWNET) < 0) throw new SyscallError('setns', lastErrno(), 'CLONE_NEWNET', 'CAP_SYS_ADMIN')
}
