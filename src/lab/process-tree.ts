import { readdirSync, readFileSync } from 'node:fs'

/** A process with its children and theirs, as they are now. */
export function processTree(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const parent = parentOf(Number(entry))
    if (parent !== undefined) parents.set(Number(entry), parent)
  }
  const tree = [pid]
  for (const known of tree) for (const [child, parent] of parents) if (parent === known) tree.push(child)
  return tree
}

/** undefined: it has ended meanwhile. */
function parentOf(pid: number): number | undefined {
  try {
    // field 4, counted from behind the command's closing parenthesis: proc_pid_stat(5)
    return Number(readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')[1])
  } catch {
    return undefined
  }
}

const TICKS_PER_SECOND = 100 // USER_HZ, the same on all architectures that Node runs on

/** User and system CPU seconds that processes have used, all threads together; steps of 10 ms. */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0
  for (const pid of pids) {
    // fields 14 and 15, counted from behind the command's closing parenthesis: proc_pid_stat(5)
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')
    ticks += Number(fields[11]) + Number(fields[12])
  }
  return ticks / TICKS_PER_SECOND
}

/** Resident bytes of processes that are neither a file's nor shared: what they have asked the kernel for. */
export function userBytes(pids: readonly number[]): number {
  let kilobytes = 0
  for (const pid of pids) {
    kilobytes += Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0)
  }
  return kilobytes * 1024
}
