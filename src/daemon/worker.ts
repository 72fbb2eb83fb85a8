import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { ProgramConfig } from '../apps/define-config.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import { LimpidError } from '../errors.ts'
import type { BoundSockets } from '../proxy/bound-sockets.ts'
import type { ProxyStats } from '../proxy/stats.ts'
import type { FromWorker, ToldError, ToldLesson, ToWorker } from './worker-messages.ts'

const PROGRAM = fileURLToPath(new URL('./worker-process.js', import.meta.url))
const FIRST_INHERITED = 4 // after stdin, stdout, stderr and the channel
const POLICY_MS = 60_000 // 256 lists at their largest, on a busy machine
const STATS_MS = 1_000 // then it is busy, and what it told last is taken

export interface WorkerOptions {
  readonly config: ProgramConfig
  /** It gets descriptors of its own of these; the caller keeps, and closes, those that it has. */
  readonly sockets: readonly BoundSockets[]
  /** Flow records are wanted. */
  readonly records: boolean
  /** A program with its arguments that starts another one: see confinement(). */
  readonly wrapper: readonly [string, ...string[]]
  onMessage(message: FromWorker): void
  /** Once; `how`: `exit code 1`, `SIGKILL`. */
  onEnd(how: string): void
}

/** A worker process, seen from the supervisor. */
export class Worker {
  readonly #child: ChildProcess
  readonly startedAt = performance.now()
  /** Rejects when it cannot serve, or ends before it does. */
  readonly listening: Promise<void>
  /** Resolves when it has ended, and all that it said has been heard. */
  readonly ended: Promise<void>
  /** What it told last. */
  stats: ProxyStats | undefined
  recordsDropped = 0
  #isEnded = false
  #asked: (() => void)[] = []
  /** Who waits for an answer about a policy. */
  #policyAsked: { readonly turn: number; done(error: ToldError | undefined): void } | undefined

  constructor(options: WorkerOptions) {
    const { config, sockets, records, wrapper } = options
    const fds: number[] = []
    const inherit = (fd: number | undefined): number | undefined =>
      fd === undefined ? undefined : FIRST_INHERITED + fds.push(fd) - 1
    const inherited = sockets.map(({ at, tcp, udp }) => ({ at, tcp: inherit(tcp), udp: inherit(udp) }))
    const [program, ...rest] = wrapper
    const args = [...rest, process.execPath, ...process.execArgv, PROGRAM]
    this.#child = spawn(program, args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...fds],
      serialization: 'advanced',
    })
    let onEnded = (): void => {}
    this.ended = new Promise((resolve) => {
      onEnded = resolve
    })
    this.listening = this.#begin(options, onEnded)
    this.listening.catch(() => {}) // whoever does not wait for it hears of its end
    this.#tell({ kind: 'serve', config, sockets: inherited, records })
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Has it tell its counters as they are now. `stats` stays what it was when it does not answer, or has ended. */
  async askStats(): Promise<void> {
    if (this.#isEnded) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, STATS_MS)
      this.#asked.push(() => {
        clearTimeout(timer)
        resolve()
      })
      this.#tell({ kind: 'tell-stats' })
    })
  }

  /** What its clients have learnt from others. */
  tellLessons(lessons: readonly ToldLesson[]): void {
    this.#tell({ kind: 'lessons', lessons })
  }

  /**
   * Has it read the lists of another policy, and keep that ready for usePolicy(). Resolves also when it has ended.
   * @throws LimpidError with what is wrong; dropPolicy() is still the caller's.
   */
  async preparePolicy(turn: number, policy: PolicyConfig, shadow: PolicyConfig | undefined): Promise<void> {
    const error = await this.#askPolicy({ kind: 'prepare-policy', turn, policy, shadow })
    if (error !== undefined) throw failureOf(error)
  }

  /** Has it decide by what it has prepared; resolves when it does, or has ended, or is too busy to say so. */
  async usePolicy(turn: number): Promise<void> {
    await this.#askPolicy({ kind: 'use-policy', turn })
  }

  dropPolicy(turn: number): void {
    this.#tell({ kind: 'drop-policy', turn })
  }

  stopAccepting(): void {
    this.#tell({ kind: 'stop-accepting' })
  }

  drain(deadlineMs: number): void {
    this.#tell({ kind: 'drain', deadlineMs })
  }

  close(): void {
    this.#tell({ kind: 'close' })
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  /** One at a time. */
  async #askPolicy(message: ToWorker & { readonly turn: number }): Promise<ToldError | undefined> {
    if (this.#isEnded) return undefined
    const error = await new Promise<ToldError | undefined>((resolve) => {
      const late = `a worker has not answered in ${POLICY_MS} ms`
      const timer = setTimeout(resolve, POLICY_MS, { code: 'LIMPID_WORKER', message: late, cure: undefined })
      const done = (error: ToldError | undefined): void => {
        clearTimeout(timer)
        resolve(error)
      }
      this.#policyAsked = { turn: message.turn, done }
      this.#tell(message)
    })
    this.#policyAsked = undefined
    return error
  }

  #begin({ onMessage, onEnd }: WorkerOptions, onEnded: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      let failure: LimpidError | undefined
      this.#child.on('message', (message: FromWorker) => {
        if (message.kind === 'failed') failure = failureOf(message)
        else if (message.kind === 'stats') this.#noteStats(message)
        else if (message.kind === 'listening') resolve()
        else if (message.kind === 'policy-answer' && this.#policyAsked?.turn === message.turn) {
          this.#policyAsked.done(message.error)
        }
        onMessage(message)
      })
      const end = (how: string): void => {
        if (this.#isEnded) return
        this.#isEnded = true
        this.#answer()
        this.#policyAsked?.done(undefined)
        reject(failure ?? new LimpidError('LIMPID_WORKER', `a worker ended before it listened: ${how}`))
        onEnd(failure?.message ?? how)
        onEnded()
      }
      this.#child.once('error', (error) => end(error.message))
      // 'close' comes after the last message, 'exit' perhaps before it
      this.#child.once('close', (code, signal) => end(signal ?? `exit code ${code}`))
    })
  }

  #noteStats({ stats, recordsDropped }: Extract<FromWorker, { kind: 'stats' }>): void {
    this.stats = stats
    this.recordsDropped = recordsDropped
    this.#answer()
  }

  #answer(): void {
    for (const done of this.#asked.splice(0)) done()
  }

  #tell(message: ToWorker): void {
    if (this.#child.connected) this.#child.send(message, () => {}) // one that is gone is told by its end
  }
}

function failureOf({ code, message, cure }: ToldError): LimpidError {
  return new LimpidError(code ?? 'LIMPID_WORKER', message, { cure })
}
