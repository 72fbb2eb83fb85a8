import { readFileSync } from 'node:fs'

const TICKS_PER_SECOND = 100 // USER_HZ, the same on all architectures that Node runs on

/** User and system CPU seconds that a process has used, all threads together; steps of 10 ms. */
export function cpuSeconds(pid: number): number {
  // fields 14 and 15, counted from behind the command's closing parenthesis: proc_pid_stat(5)
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}
