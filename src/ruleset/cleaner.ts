import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import { endByPipe, findProgram } from '../sys/program.ts'
import type { ChainProgram } from './iptables-text.ts'
import { startTime } from './journal.ts'

const EXIT_TIMEOUT_MS = 20_000 // node starts anew, and 10 000 rules are listed and removed

/** Waits for the end of its standard input, whatever else happens to it, and becomes the program that it was given. */
const WAIT = 'trap "" HUP INT TERM; while read -r line; do :; done; exec "$@"'

/** What our chains are called in one program. */
export interface CleanedChains {
  readonly program: ChainProgram
  readonly name: string
}

/** A process, known again although pids come again. */
export interface CleanerProcess {
  readonly pid: number
  readonly startTime: string
}

/**
 * A child that removes our chains of iptables when we die, by whatever: iptables has nothing like nft's tables that belong to a
 * process. It is a shell that reads a pipe of ours, and only when that closes a node that removes, so it costs no memory
 * until then.
 */
export class Cleaner {
  readonly #child: ChildProcess
  #closing = false

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /**
   * To be called before the chains are loaded: a kill between the two leaves nothing.
   * @param onLost called once when the child ends although `close` was not called: from then on the chains outlive us.
   * @throws LimpidError LIMPID_PROGRAM when there is no sh.
   */
  static start(chains: readonly CleanedChains[], onLost: (error: LimpidError) => void): Cleaner {
    const main = fileURLToPath(new URL(`./cleaner-main${extname(import.meta.url)}`, import.meta.url))
    const own = [`${process.pid}`, startTime(process.pid) ?? '']
    const names = chains.map(({ program, name }) => `${program}=${name}`)
    const args = ['-c', WAIT, 'sh', process.execPath, main, ...own, ...names]
    // a session of its own: Ctrl-C on our terminal must not end it before our flows have drained
    const child = spawn(findProgram('sh'), args, { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
    const cleaner = new Cleaner(child)
    child.on('error', () => {}) // its end is reported below
    child.stdin?.on('error', () => {})
    child.once('exit', (code, signal) => {
      if (cleaner.#closing) return
      onLost(
        new LimpidError(
          'LIMPID_RULES_FAILED',
          `the process that is to remove the chains of iptables ended (${signal ?? code})`,
        ),
      )
    })
    // a child and its pipe keep a process running that has nothing left to do
    child.unref()
    ;(child.stdin as Socket | null)?.unref()
    return cleaner
  }

  /** For the journal: whoever starts next must wait for it. */
  get process(): CleanerProcess {
    const pid = this.#child.pid ?? 0
    return { pid, startTime: startTime(pid) ?? '' }
  }

  /** Has it remove the chains now. Returns when they are gone, or when the child ended without: read back. */
  async close(): Promise<void> {
    this.#closing = true
    await endByPipe(this.#child, EXIT_TIMEOUT_MS)
  }
}

/** Whether a cleaner that a journal names has not finished yet. */
export function isCleanerAlive(cleaner: CleanerProcess): boolean {
  return cleaner.startTime !== '' && startTime(cleaner.pid) === cleaner.startTime
}
