import { readFileSync } from 'node:fs'

const UNKNOWN_LIMIT = 1_024 // the traditional soft limit, getrlimit(2)

/** RLIMIT_NOFILE of this process: how many descriptors it may hold. Node raises the soft limit to the hard one at start. */
export function descriptorLimit(): number {
  const line = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
  return line === null ? UNKNOWN_LIMIT : Number(line[1])
}
