import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import type { FlowRecord } from '../proxy/record.ts'
import type { ProxyStats } from '../proxy/stats.ts'
import type { Host } from './host.ts'
import { cpuSeconds, userBytes } from './process-tree.ts'

/** The program as an operator starts it. */
export const LIMPID_PROGRAM = fileURLToPath(new URL('../../bin/limpid', import.meta.url))

const READY_MS = 30_000 // some ten programs are run before; on a busy machine each takes a while
const STOP_MS = 15_000
const RECORD_MS = 30_000
const STATS_MS = 30_000
const LAST_WORDS_MS = 500
const KEPT_STDERR = 65_536

interface LaunchOptions {
  readonly wrapper?: readonly string[]
  readonly env?: Record<string, string>
  readonly program?: string
}

/** `limpid run` or `limpid relay` on a host of the lab, as a process of its own, with `--json` flow lines. */
export class LimpidProcess implements AsyncDisposable {
  readonly child: ChildProcess
  /** Flow records in the order in which they were printed. */
  readonly records: FlowRecord[] = []
  /** The last of what it said on stderr. */
  stderr = ''
  readonly #exited: Promise<number>
  #taken = 0

  private constructor(child: ChildProcess) {
    this.child = child
    this.#exited = once(child, 'exit').then(([code, signal]) => (signal === null ? (code as number) : -1))
    createInterface({ input: child.stdout! }).on('line', (line) => this.records.push(JSON.parse(line) as FlowRecord))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-KEPT_STDERR)
    })
  }

  /**
   * Starts it, and returns when it says that it is ready. `wrapper`: a program with arguments that runs it, such as
   * `['prlimit', '--nofile=256']`. `program`: `bin/limpid` of another checkout.
   * @throws LimpidError LIMPID_LAB with its stderr when it ends before.
   */
  static async start(host: Host, args: readonly string[], options: LaunchOptions = {}): Promise<LimpidProcess> {
    const started = LimpidProcess.launch(host, args, options)
    await started.ready()
    return started
  }

  /** Starts it without waiting. */
  static launch(host: Host, args: readonly string[], options: LaunchOptions = {}): LimpidProcess {
    const [program, ...rest] = [
      ...(options.wrapper ?? []),
      ...[process.execPath, options.program ?? LIMPID_PROGRAM, ...args, '--json'],
    ]
    const child = host.spawn(program!, rest, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    })
    return new LimpidProcess(child)
  }

  /** Waits for its "ready" line. */
  async ready(): Promise<void> {
    const deadlineAt = performance.now() + READY_MS
    while (!/\bready\b/.test(this.stderr)) {
      if (this.child.exitCode !== null || this.child.signalCode !== null || performance.now() > deadlineAt) {
        this.child.kill('SIGKILL')
        await this.#lastWords()
        throw new LimpidError('LIMPID_LAB', `limpid did not get ready: ${this.stderr}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** What it wrote before it ended may still be in the pipe. */
  async #lastWords(): Promise<void> {
    const { stderr } = this.child
    if (stderr === null || stderr.readableEnded) return
    const enough = AbortSignal.timeout(LAST_WORDS_MS)
    await once(stderr, 'end', { signal: enough }).catch(() => {}) // a child of its own may hold the pipe
  }

  get pid(): number {
    return this.child.pid!
  }

  /** The next flow record, in order; waits for it. */
  async nextRecord(withinMs = RECORD_MS): Promise<FlowRecord> {
    const index = this.#taken++
    await this.recorded(index + 1, withinMs)
    return this.records[index]!
  }

  /** What was recorded so far is not given by nextRecord() any more. */
  skipRecords(): void {
    this.#taken = this.records.length
  }

  /** Waits until `count` flows have ended. */
  async recorded(count: number, withinMs = RECORD_MS): Promise<void> {
    const deadlineAt = performance.now() + withinMs
    while (this.records.length < count) {
      if (performance.now() > deadlineAt) {
        throw new LimpidError(
          'LIMPID_LAB',
          `${this.records.length} of ${count} flow records within ${withinMs} ms: ${this.stderr}`,
        )
      }
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Its counters (SIGUSR2). */
  async stats(): Promise<ProxyStats> {
    const before = this.stderr.length
    this.child.kill('SIGUSR2')
    const deadlineAt = performance.now() + STATS_MS
    for (;;) {
      const line = /\{"dials":.*\}/.exec(this.stderr.slice(before))?.[0]
      if (line !== undefined) return JSON.parse(line) as ProxyStats
      if (performance.now() > deadlineAt) throw new LimpidError('LIMPID_LAB', `no counters: ${this.stderr}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Its open descriptors. */
  descriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length
  }

  /** User and system CPU seconds that it has used. */
  cpuSeconds(): number {
    return cpuSeconds([this.pid])
  }

  /** Resident bytes that are its own (private, not file-backed). */
  anonymousBytes(): number {
    return userBytes([this.pid])
  }

  /** Signals it and waits for its exit code (-1 when a signal ended it). */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS)
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal)
    const code = await this.#exited
    clearTimeout(timer)
    return code
  }

  /** Ends it, where nobody has. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** Its exit code, when it ends by itself. */
  get exited(): Promise<number> {
    return this.#exited
  }
}
