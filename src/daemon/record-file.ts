import { close, constants, fstatSync, open, write } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { promisify } from 'node:util'
import { distrust } from '../config/trust.ts'
import { LimpidError } from '../errors.ts'
import type { RecordSink, SinkStats } from './record-sinks.ts'

const MAX_WAITING_BYTES = 4 * 1024 * 1024 // some 8,000 records; beyond it they are dropped
const WRITE_BYTES = 262_144
const RETRY_MS = 1_000 // of a disk that is full, or gone
const NEWLINE = 0x0a

const openFile = promisify(open)
const closeFile = promisify(close)

/**
 * Appends lines to a file without anybody waiting for it: a disk that is full or slow costs lines, which are counted, and no flow. A line that
 * was begun is ended before another one begins.
 */
export class RecordFile implements RecordSink {
  readonly #path: string
  readonly #note: (line: string) => void
  #fd: number
  #lines: Buffer[] = []
  #waitingBytes = 0
  /** What is written now, or was begun. */
  #begun: Buffer = Buffer.alloc(0)
  #mustReopen = false
  #writing: Promise<void> | undefined
  readonly #closing = new AbortController()
  #written = 0
  #dropped = 0
  #problem: string | undefined

  private constructor(path: string, fd: number, note: (line: string) => void) {
    this.#path = path
    this.#fd = fd
    this.#note = note
  }

  /** `note`: told when it cannot be written, and when it can again. @throws LimpidError LIMPID_RECORDS */
  static async open(path: string, note: (line: string) => void): Promise<RecordFile> {
    return new RecordFile(path, await openTrusted(path), note)
  }

  write(line: string): void {
    const bytes = Buffer.from(`${line}\n`)
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) {
      this.#dropped++
      return
    }
    this.#lines.push(bytes)
    this.#waitingBytes += bytes.length
    this.#go()
  }

  reopen(): void {
    this.#mustReopen = true
    this.#go()
  }

  get stats(): SinkStats {
    return {
      to: this.#path,
      written: this.#written,
      dropped: this.#dropped,
      waiting: this.#lines.length,
      problem: this.#problem,
    }
  }

  async close(withinMs: number): Promise<void> {
    const timer = setTimeout(() => this.#closing.abort(), withinMs)
    await this.#writing
    clearTimeout(timer)
    this.#dropped += linesIn(this.#begun) + this.#lines.length
    this.#lines = []
    await closeFile(this.#fd)
  }

  #go(): void {
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined
    })
  }

  async #writeAll(): Promise<void> {
    await Promise.resolve() // lines of one turn go together
    while (!this.#closing.signal.aborted && (this.#mustReopen || this.#begun.length > 0 || this.#lines.length > 0)) {
      try {
        if (this.#mustReopen) await this.#openAgain()
        if (this.#begun.length === 0) this.#begin()
        await this.#writeSome()
        if (this.#problem !== undefined) this.#note(`records are written again to ${this.#path}`)
        this.#problem = undefined
      } catch (error) {
        const problem =
          error instanceof LimpidError
            ? error.message
            : `cannot write ${this.#path}: ${(error as NodeJS.ErrnoException).code}`
        if (this.#problem !== problem) this.#note(`records wait, and are dropped when there are too many: ${problem}`)
        this.#problem = problem
        await wait(RETRY_MS, undefined, { signal: this.#closing.signal, ref: false }).catch(() => {})
      }
    }
  }

  #begin(): void {
    let [count, bytes] = [0, 0]
    while (count < this.#lines.length && bytes < WRITE_BYTES) bytes += this.#lines[count++]!.length
    this.#begun = Buffer.concat(this.#lines.splice(0, count), bytes)
  }

  async #writeSome(): Promise<void> {
    if (this.#begun.length === 0) return
    const bytes = await new Promise<number>((resolve, reject) =>
      write(this.#fd, this.#begun, 0, this.#begun.length, null, (error, count) =>
        error ? reject(error) : resolve(count),
      ),
    )
    this.#written += linesIn(this.#begun.subarray(0, bytes))
    this.#begun = this.#begun.subarray(bytes)
    this.#waitingBytes -= bytes
  }

  /** The file of that name now. What was begun is ended in the former one, where that can be. */
  async #openAgain(): Promise<void> {
    await this.#writeSome().catch(() => {})
    const fresh = await openTrusted(this.#path)
    this.#mustReopen = false
    await closeFile(this.#fd)
    this.#fd = fresh
    this.#dropRest()
  }

  /** Of a line that was begun in another file. */
  #dropRest(): void {
    const end = this.#begun.indexOf(NEWLINE) + 1
    if (end === 0) return
    this.#dropped++
    this.#waitingBytes -= end
    this.#begun = this.#begun.subarray(end)
  }
}

function linesIn(bytes: Uint8Array): number {
  let lines = 0
  for (const byte of bytes) if (byte === NEWLINE) lines++
  return lines
}

/** Neither a link nor a FIFO nor what others can write: records say who dials whom. @throws LimpidError LIMPID_RECORDS */
async function openTrusted(path: string): Promise<number> {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants
  let fd: number | undefined
  let why: string | undefined
  try {
    fd = await openFile(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o640)
    const stats = fstatSync(fd)
    why = stats.isFile() ? distrust(stats, process.geteuid!()) : 'it is not a file'
    if (why === undefined) return fd
    await closeFile(fd)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    why = code === 'ELOOP' ? 'it is a link' : code
  }
  throw new LimpidError('LIMPID_RECORDS', `cannot write ${path}: ${why}`, {
    cure: 'name a file in a folder that only this user can write: records: { file: … }',
  })
}
