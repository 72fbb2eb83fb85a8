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
  #closing = false

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /**
   * Starts nft and has it load `text` (which adds the inet table `table`) as one transaction.
   * @param onLost called once when nft ends although `close` was not called: the table is gone by then.
   * @throws LimpidError LIMPID_PROGRAM with nft's own words when the kernel refuses.
   */
  static async start(text: string, table: string, onLost: (error: LimpidError) => void): Promise<TableOwner> {
    const file = JournalFile.make().textPath
    if (file.includes('"'))
      throw new LimpidError('LIMPID_PROGRAM', `nft cannot include a file with a quote in its name: ${file}`)
    writeFileSync(file, text, { mode: 0o600 })
    // a session of its own: Ctrl-C on our terminal must not end nft before our flows have drained
    const child = spawn(findProgram('nft'), ['-i'], {
      detached: true,
      stdio: 'pipe',
      env: { ...process.env, LC_ALL: 'C' },
    })
    const owner = new TableOwner(child)
    try {
      await accepted(child, [`include "${file}"`, 'list tables inet'], `table inet ${table}`)
    } catch (error) {
      await owner.close()
      throw error
    } finally {
      rmSync(file, { force: true })
    }
    child.stdout?.resume()
    child.stderr?.resume()
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

  /** Lets nft end, and the table with it. Returns when nft is gone; kills it after 2 s. */
  async close(): Promise<void> {
    this.#closing = true
    await endByPipe(this.#child, EXIT_TIMEOUT_MS)
  }
}

/** Sends the lines; settles when nft has printed a line `answer`, or says anything on stderr, or ends. */
async function accepted(child: ChildProcess, lines: readonly string[], answer: string): Promise<void> {
  const { stdin, stdout, stderr } = child
  if (stdin === null || stdout === null || stderr === null) throw new Error('nft was started without pipes')
  await new Promise<void>((resolve, reject) => {
    let said = ''
    let complained = ''
    const fail = (why: string) => settle(() => reject(new LimpidError('LIMPID_PROGRAM', `nft -i: ${why}`)))
    const settle = (done: () => void) => {
      clearTimeout(timer)
      stdout.removeAllListeners('data')
      stderr.removeAllListeners('data')
      child.removeAllListeners()
      child.on('error', () => {})
      done()
    }
    const timer = setTimeout(() => fail(`no answer in ${ACCEPT_TIMEOUT_MS} ms`), ACCEPT_TIMEOUT_MS)
    stdin.on('error', () => {}) // its end is reported below
    stdout.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-MAX_MESSAGE)
      if (said.split('\n').includes(answer)) settle(resolve)
    })
    stderr.on('data', (chunk: Buffer) => {
      complained += chunk.toString()
      const why = complaint(complained)
      if (why !== undefined) fail(why) // what it was told to include may come in a piece of its own
    })
    child.once('error', (error) => fail(error.message))
    child.once('exit', (code, signal) => fail(`it ended (${signal ?? code})`))
    stdin.write(`${lines.join('\n')}\n`)
  })
}

/** nft's own words, which follow those about the file that we had it include. */
function complaint(stderr: string): string | undefined {
  return firstLine(stderr.replaceAll(/^In file included from .*\n/gm, ''))
}
