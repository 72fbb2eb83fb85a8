import { EventEmitter } from 'node:events'
import { release } from 'node:os'
import type { ProgramConfig } from '../apps/define-config.ts'
import { formatDuration } from '../config/duration.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Endpoint } from '../net/address.ts'
import { type BoundSockets, bindSockets, closeSockets } from '../proxy/bound-sockets.ts'
import type { FlowRecord } from '../proxy/record.ts'
import type { ProxyStats } from '../proxy/stats.ts'
import { HookWatch } from './hook-watch.ts'
import { type PoolStats, shareOf } from './pool-stats.ts'
import { countersOf, sumStats } from './summed-stats.ts'
import { Worker, type WorkerOptions } from './worker.ts'
import { confinement, workerCapabilities } from './worker-capabilities.ts'
import { workerConfig, workerPolicy } from './worker-config.ts'
import type { FromWorker, ToldLesson } from './worker-messages.ts'

const FIRST_BACKOFF_MS = 100
const MAX_BACKOFF_MS = 10_000
const STEADY_MS = 60_000 // who lived so long begins with the first backoff again
const END_MS = 3_000 // beyond the deadline it had; then it is killed

/** One place of the pool: a worker, or the time until the next one. */
interface Slot {
  readonly number: number
  /**
   * What the supervisor keeps. Of UDP, so that they stay in the kernel's group, and every session with its place. Of TCP where there is one
   * worker: until the next one listens, clients wait in the backlog instead of going undecided past listeners that are open when down.
   */
  kept: readonly BoundSockets[]
  worker: Worker | undefined
  watch: HookWatch | undefined
  backoffMs: number
  timer: NodeJS.Timeout | undefined
}

interface PoolEvents {
  flow: [record: FlowRecord]
  note: [line: string]
  bypass: [destination: string, forMs: number]
}

/**
 * Relays in several processes, between which the kernel shares out what comes (SO_REUSEPORT). One that ends takes its own
 * flows along; new ones go to the others at once, and another process takes its place.
 */
export class WorkerPool extends EventEmitter<PoolEvents> {
  #config: ProgramConfig
  readonly #wrapper: WorkerOptions['wrapper']
  readonly #records: boolean
  /** How long hooks may compute; 0: there are none, or nobody watches. */
  readonly #computingMs: number
  readonly #count: number
  readonly #slots: Slot[] = []
  #addresses: readonly Endpoint[] = []
  #ended: ProxyStats | undefined
  #restarts = 0
  #flowsLost = 0
  #hooksEndless = 0
  #recordsDropped = 0
  #flowsTold = 0
  #policyTurn = 0
  /** Who ends now is replaced. */
  #isServing = false

  /** `records`: whether flows are to be told. @throws LimpidError LIMPID_PROGRAM without setpriv. */
  constructor(config: ProgramConfig, options: { readonly workers: number; readonly records: boolean }) {
    super()
    this.#config = workerConfig(config, options.workers)
    this.#count = options.workers
    this.#records = options.records
    this.#computingMs = config.hooks?.computingMs ?? 0
    this.#wrapper = confinement(workerCapabilities(config, release()))
  }

  /**
   * Binds the listeners, starts the workers, and returns when all of them listen.
   * @throws LimpidError as TransparentProxy's listen(); LIMPID_WORKER. Then no worker is left.
   */
  async listen(): Promise<readonly Endpoint[]> {
    // alone first: with SO_REUSEPORT a socket of another program of ours would not be noticed, and take half of what comes
    const alone = bindSockets(this.#config)
    this.#addresses = alone.map(({ at }) => at)
    closeSockets(alone)
    try {
      for (let number = 1; number <= this.#count; number++) {
        const kept = bindSockets(this.#config, {
          reusePort: true,
          at: this.#addresses,
          ...(this.#count > 1 && { only: 'udp' }),
        })
        this.#slots.push({
          number,
          kept,
          worker: undefined,
          watch: undefined,
          backoffMs: FIRST_BACKOFF_MS,
          timer: undefined,
        })
      }
      for (const slot of this.#slots) this.#start(slot)
      await Promise.all(this.#slots.map(({ worker }) => worker!.listening))
      this.#isServing = true
    } catch (error) {
      await this.close()
      throw error
    }
    return this.#addresses
  }

  /**
   * All workers make it ready before the first one decides by it; resolves when all do. One at a time.
   * @throws LimpidError with what is wrong: then none decides by it.
   */
  async usePolicy(wholePolicy: PolicyConfig, wholeShadow?: PolicyConfig): Promise<void> {
    const policy = workerPolicy(wholePolicy, this.#count)
    const shadow = wholeShadow && workerPolicy(wholeShadow, this.#count)
    const turn = ++this.#policyTurn
    const ready = new Set<Worker>()
    const waiting = () =>
      this.#slots.flatMap(({ worker }) => (worker === undefined || ready.has(worker) ? [] : [worker]))
    try {
      // one that begins meanwhile has the former policy
      for (let others = waiting(); others.length > 0; others = waiting()) {
        for (const worker of others) ready.add(worker)
        await allSettled(others.map((worker) => worker.preparePolicy(turn, policy, shadow)))
      }
    } catch (error) {
      for (const worker of ready) worker.dropPolicy(turn)
      throw error
    }
    this.#config = { ...this.#config, policy, shadow }
    await Promise.all([...ready].map((worker) => worker.usePolicy(turn)))
  }

  stopAccepting(): void {
    this.#stopReplacing()
    for (const { worker } of this.#slots) worker?.stopAccepting()
  }

  /** The workers stop accepting, let their flows end, and after `deadlineMs` end those that are left. */
  async drain(deadlineMs: number): Promise<void> {
    this.#stopReplacing()
    for (const { worker } of this.#slots) worker?.drain(deadlineMs)
    await this.#haveEnded(deadlineMs + END_MS)
    await this.close()
  }

  /** Ends the workers and their flows now. */
  async close(): Promise<void> {
    this.#stopReplacing()
    for (const { worker } of this.#slots) worker?.close()
    await this.#haveEnded(END_MS)
    for (const { kept } of this.#slots.splice(0)) closeSockets(kept)
    if (this.#recordsDropped > 0)
      this.emit('note', `${this.#recordsDropped} flow lines were dropped: they came too fast`)
    this.#recordsDropped = 0
  }

  /** Of the workers that there are and were; once they listen. */
  async stats(): Promise<PoolStats> {
    await Promise.all(this.#slots.map(({ worker }) => worker?.askStats()))
    const living = this.#slots.map(({ worker }) => worker) // one that has ended meanwhile is among those that were
    const known = [this.#ended, ...living.map((worker) => worker?.stats)].filter((stats) => stats !== undefined)
    return {
      ...sumStats(known),
      workers: living.map(shareOf),
      workerRestarts: this.#restarts,
      flowsLost: this.#flowsLost,
      hooksEndless: this.#hooksEndless,
    }
  }

  #stopReplacing(): void {
    this.#isServing = false
    for (const slot of this.#slots) {
      clearTimeout(slot.timer)
      closeSockets(slot.kept.map((sockets) => ({ ...sockets, udp: undefined }))) // nobody is to wait for who does not come
      slot.kept = slot.kept.map((sockets) => ({ ...sockets, tcp: undefined }))
    }
  }

  /** Waits for all to end, and kills those that have not after `withinMs`. */
  async #haveEnded(withinMs: number): Promise<void> {
    const living = this.#slots.map(({ worker }) => worker).filter((worker) => worker !== undefined)
    const timer = setTimeout(() => {
      for (const worker of living) worker.kill()
    }, withinMs)
    await Promise.all(living.map(({ ended }) => ended))
    clearTimeout(timer)
  }

  #start(slot: Slot): void {
    const own = this.#count > 1 ? bindSockets(this.#config, { reusePort: true, at: this.#addresses, only: 'tcp' }) : []
    const sockets = slot.kept.map(({ at, tcp, udp }, index) => ({ at, tcp: tcp ?? own[index]?.tcp, udp }))
    try {
      const worker = new Worker({
        config: this.#config,
        sockets,
        records: this.#records,
        wrapper: this.#wrapper,
        onMessage: (message) => this.#onMessage(slot, message),
        onEnd: (how) => this.#onEnd(slot, worker, how),
      })
      slot.worker = worker
      if (this.#computingMs > 0) slot.watch = new HookWatch(this.#computingMs, (hook) => this.#onEndless(slot, hook))
    } finally {
      closeSockets(own) // the worker's are left: when it ends, the kernel knows at once that nobody listens there, and asks another
    }
  }

  #onMessage(slot: Slot, message: FromWorker): void {
    slot.watch?.hear(slot.worker?.pid, message)
    if (message.kind === 'note') this.emit('note', `worker ${slot.number}: ${message.line}`)
    else if (message.kind === 'bypass') this.emit('bypass', message.destination, message.forMs)
    else if (message.kind === 'lessons') this.#passOn(message.lessons, slot)
    else if (message.kind === 'flows') this.#tellFlows(message.records)
  }

  /** Ids count up from 1 in each worker, and so they do here. */
  #tellFlows(records: readonly FlowRecord[]): void {
    for (const record of records) this.emit('flow', { ...record, id: ++this.#flowsTold })
  }

  #passOn(lessons: readonly ToldLesson[], from: Slot): void {
    for (const slot of this.#slots) if (slot !== from) slot.worker?.tellLessons(lessons)
  }

  #onEnd(slot: Slot, worker: Worker, how: string): void {
    slot.worker = undefined
    slot.watch?.[Symbol.dispose]()
    slot.watch = undefined
    const { stats, recordsDropped } = worker
    this.#recordsDropped += recordsDropped
    const lost = (stats?.flowsOpen ?? 0) + (stats?.sessionsOpen ?? 0)
    this.#flowsLost += lost
    const ended = [this.#ended, stats && countersOf(stats)].filter((one) => one !== undefined)
    if (ended.length > 0) this.#ended = sumStats(ended)
    if (!this.#isServing) return
    if (performance.now() - worker.startedAt > STEADY_MS) slot.backoffMs = FIRST_BACKOFF_MS
    const waitMs = slot.backoffMs
    slot.backoffMs = Math.min(waitMs * 2, MAX_BACKOFF_MS)
    this.emit(
      'note',
      `worker ${slot.number} (pid ${worker.pid ?? '?'}) ended: ${how}; ${lost} flow${lost === 1 ? ' is' : 's are'} lost, the next begins in ${formatDuration(waitMs)}`,
    )
    slot.timer = setTimeout(() => this.#restart(slot), waitMs)
  }

  /** `hook`: its name, where that is known. */
  #onEndless(slot: Slot, hook: string): void {
    const { number, worker } = slot
    this.#hooksEndless++
    const bound = formatDuration(this.#computingMs)
    this.emit(
      'note',
      `worker ${number} (pid ${worker?.pid}): ${hook} has computed for ${bound} without a pause, and all its flows wait: it is ended`,
    )
    worker?.kill()
  }

  #restart(slot: Slot): void {
    this.#restarts++
    try {
      this.#start(slot)
    } catch (error) {
      this.emit('note', `worker ${slot.number} cannot begin: ${(error as Error).message}`)
      slot.timer = setTimeout(() => this.#restart(slot), MAX_BACKOFF_MS)
    }
  }
}

/** Waits for all of them, then throws what the first one of those that failed threw. */
async function allSettled(promises: readonly Promise<void>[]): Promise<void> {
  const settled = await Promise.allSettled(promises)
  for (const one of settled) if (one.status === 'rejected') throw one.reason
}
