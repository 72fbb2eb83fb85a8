import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'

/** What a child that runs to its end has said so far. */
export interface ChildOutput {
  stdout: string
  stderr: string
  /** Its exit code, when both are complete; null when it died of a signal. */
  readonly closed: Promise<number | null>
}

/** Reads what a child writes; kills it when it has not ended after `timeoutMs`. */
export function outputOf(child: ChildProcess, timeoutMs: number): ChildOutput {
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
  const closed = once(child, 'close').then(([code]) => {
    clearTimeout(timer)
    return code as number | null
  })
  const output = { stdout: '', stderr: '', closed }
  child.stdout!.on('data', (bytes) => {
    output.stdout += bytes
  })
  child.stderr!.on('data', (bytes) => {
    output.stderr += bytes
  })
  return output
}
