import { closeSync, openSync, readSync } from 'node:fs'
import { HOOK_NAMES } from '../proxy/flow-hooks.ts'
import { littleEndian } from '../sys/byte-order.ts'
import type { FromWorker } from './worker-messages.ts'

/** A worker with hooks says so many times, in the time that one may compute, that its event loop turns. */
export const TURNS_TOLD = 4

/**
 * Notices that a worker's event loop does not turn any more: a hook computes without end. Begins when it says so for the first time, since
 * to load a program may take a while. Told once.
 */
export class HookWatch implements Disposable {
  readonly #computingMs: number
  readonly #onEndless: (hook: string) => void
  #timer: NodeJS.Timeout | undefined
  /** Turns of our own since it was heard: where this process stands still, too, nothing is counted. */
  #silent = 0

  /** `onEndless`: with the hook's name, or `a hook`. */
  constructor(computingMs: number, onEndless: (hook: string) => void) {
    this.#computingMs = computingMs
    this.#onEndless = onEndless
  }

  /** Takes what the worker, a process of that id, has said. */
  hear(pid: number | undefined, message: FromWorker): void {
    this.#silent = 0
    if (message.kind !== 'turns' || this.#timer !== undefined) return
    const look = (): void => {
      if (++this.#silent <= TURNS_TOLD) return
      this[Symbol.dispose]()
      this.#onEndless(hookIn(pid, message.computingAt))
    }
    this.#timer = setInterval(look, this.#computingMs / TURNS_TOLD)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

/** Which hook computes, out of the memory of the process, which cannot tell: /proc/PID/mem, proc_pid_mem(5). */
function hookIn(pid: number | undefined, address: number): string {
  const word = new Uint8Array(4)
  try {
    const fd = openSync(`/proc/${pid}/mem`, 'r')
    try {
      readSync(fd, word, 0, word.length, address)
    } finally {
      closeSync(fd)
    }
  } catch {
    return 'a hook' // it may not be read (ptrace(2), "Ptrace access mode checking")
  }
  const name = HOOK_NAMES[new DataView(word.buffer).getUint32(0, littleEndian)]
  return name ? `hook ${name}` : 'a hook, after an await,'
}
