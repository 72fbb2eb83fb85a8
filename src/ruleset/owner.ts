import { type ChildProcess, spawn } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { endByPipe, findProgram, firstLine } from '../sys/program.ts'
import { JournalFile } from './journal.ts'

const ACCEPT_TIMEOUT_MS = 20_000
const EXIT_TIMEOUT_MS = 2_000
const MAX_MESSAGE = 16 * 1024

/**
 * A running `nft -i` that holds an nft table with `flags owner`. It reads commands from a pipe whose other end is ours
 * alone: however we die, the pipe closes, nft ends, its netlink socket closes, and the kernel drops the table.
 */
export class TableOwner {
  readonly #child: ChildProcess
  readonly #table: string
  #closing = false
  #last: Promise<void> = Promise.resolve()

  private constructor(child: ChildProcess, table: string) {
    this.#child = child
    this.#table = table
  }

  /**
   * Starts nft and has it load `text` (which adds the inet table `table`) as one transaction.
   * @param onLost called once when nft ends although `close` was not called: the table is gone by then.
   * @throws LimpidError LIMPID_PROGRAM with nft's own words when the kernel refuses.
   */
  static async start(text: string, table: string, onLost: (error: LimpidError) => void): Promise<TableOwner> {
    // a session of its own: Ctrl-C on our terminal must not end nft before our flows have drained
    const child = spawn(findProgram('nft'), ['-i'], {
      detached: true,
      stdio: 'pipe',
      env: { ...process.env, LC_ALL: 'C' },
    })
    const owner = new TableOwner(child, table)
    child.on('error', () => {})
    child.stdin?.on('error', () => {}) // its end is reported below
    try {
      await included(child, text, { path: JournalFile.make().textPath, table, isThere: false })
    } catch (error) {
      await owner.close()
      throw error
    }
    child.once('exit', (code, signal) => {
      if (owner.#closing) return
      onLost(
        new LimpidError(
          'LIMPID_RULES_FAILED',
          `the nft process that holds table inet ${table} ended (${signal ?? code})`,
        ),
      )
    })
    // the handles of a child and its pipes keep a process running that has nothing left to do; the kernel needs no more
    child.unref()
    for (const stream of child.stdio) (stream as Socket | null)?.unref()
    return owner
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /**
   * Has nft make a change as one transaction. One at a time: the next one waits.
   * @throws LimpidError LIMPID_PROGRAM with nft's own words, when nothing was changed; or when nft has ended.
   */
  change(text: string): Promise<void> {
    const done = this.#last.then(() => this.#include(text))
    this.#last = done.catch(() => {})
    return done
  }

  async #include(text: string): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#closing) {
      throw new LimpidError('LIMPID_PROGRAM', `nft -i: the process that holds table inet ${this.#table} has ended`)
    }
    await included(this.#child, text, { path: JournalFile.make().changePath, table: this.#table, isThere: true })
  }

  /** Lets nft end, and the table with it. Returns when nft is gone; kills it after 2 s. */
  async close(): Promise<void> {
    this.#closing = true
    await endByPipe(this.#child, EXIT_TIMEOUT_MS)
  }
}

interface Included {
  readonly path: string
  readonly table: string
  /** Whether the table is there already: then it is listed also behind a text that was refused. */
  readonly isThere: boolean
}

/** Has nft load a text from a file, as one transaction: a pipe's lines would be one transaction each. */
async function included(child: ChildProcess, text: string, { path, table, isThere }: Included): Promise<void> {
  if (path.includes('"'))
    throw new LimpidError('LIMPID_PROGRAM', `nft cannot include a file with a quote in its name: ${path}`)
  writeFileSync(path, text, { mode: 0o600 })
  try {
    await accepted(child, [`include "${path}"`, 'list tables inet'], { line: `table inet ${table}`, always: isThere })
  } finally {
    rmSync(path, { force: true })
  }
}

/**
 * Sends the lines; settles when nft has printed the answer's line, or ends, or says anything on stderr: with `always` the line
 * comes all the same, and is waited for, so that it is not taken for the answer to what follows.
 */
async function accepted(
  child: ChildProcess,
  lines: readonly string[],
  answer: { readonly line: string; readonly always: boolean },
): Promise<void> {
  const { stdin, stdout, stderr } = child
  if (stdin === null || stdout === null || stderr === null) throw new Error('nft was started without pipes')
  await new Promise<void>((resolve, reject) => {
    let said = ''
    let complained = ''
    const fail = (why: string) => settle(() => reject(new LimpidError('LIMPID_PROGRAM', `nft -i: ${why}`)))
    const settle = (done: () => void) => {
      clearTimeout(timer)
      stdout.off('data', onAnswer).resume()
      stderr.off('data', onComplaint).resume()
      child.off('error', onError).off('exit', onExit)
      done()
    }
    const timer = setTimeout(() => fail(`no answer in ${ACCEPT_TIMEOUT_MS} ms`), ACCEPT_TIMEOUT_MS)
    const answered = () => {
      const why = complaint(complained)
      if (why === undefined) settle(resolve)
      else fail(why)
    }
    const onAnswer = (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-MAX_MESSAGE)
      // what it complained of before is in its pipe by now, and read within this turn of the event loop
      if (said.split('\n').includes(answer.line)) setImmediate(answered)
    }
    const onComplaint = (chunk: Buffer) => {
      complained += chunk.toString()
      const why = complaint(complained)
      if (why !== undefined && !answer.always) fail(why) // what it was told to include may come in a piece of its own
    }
    const onError = (error: Error) => fail(error.message)
    const onExit = (code: number | null, signal: string | null) => fail(`it ended (${signal ?? code})`)
    stdout.on('data', onAnswer)
    stderr.on('data', onComplaint)
    child.once('error', onError).once('exit', onExit)
    stdin.write(`${lines.join('\n')}\n`)
  })
}

/** nft's own words, which follow those about the file that we had it include. */
function complaint(stderr: string): string | undefined {
  return firstLine(stderr.replaceAll(/^In file included from .*\n/gm, ''))
}
