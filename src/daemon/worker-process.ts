// One worker, as a process of its own: relays what its sockets bring until the supervisor says otherwise, or is gone.
import { createProxy } from '../apps/create-proxy.ts'
import { LearntNames, newLesson } from '../apps/dns/learnt.ts'
import { loadProgram } from '../apps/program-file.ts'
import { LimpidError } from '../errors.ts'
import type { Policies } from '../policy/policies.ts'
import type { TransparentProxy } from '../proxy/proxy.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { setCloseOnExec } from '../sys/descriptors.ts'
import { Batch } from './batch.ts'
import { TURNS_TOLD } from './hook-watch.ts'
import { surviveStrayErrors } from './stray-errors.ts'
import type { FromWorker, ToldError, ToldLesson, ToWorker } from './worker-messages.ts'

const STATS_EVERY_MS = 1_000
const RECORDS_WAIT_MS = 20
const LESSONS_WAIT_MS = 1 // the client dials soon

// the terminal's signals come to the whole group, and the supervisor decides what they mean; SIGUSR1 would open the debugger
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const)
  process.on(signal, () => {})
process.on('disconnect', () => process.exit()) // the supervisor is gone, and its rules with it
process.on('message', (message: ToWorker) => void onMessage(message))

let proxy: TransparentProxy | undefined
let serving: Promise<void> | undefined
let prepared: { readonly turn: number; readonly policies: Policies } | undefined
let lastDropped = 0
const records = new Batch<FlowRecord>({
  waitMs: RECORDS_WAIT_MS,
  send: (records, done) => tell({ kind: 'flows', records }, done),
})
const lessons = new Batch<ToldLesson>({
  waitMs: LESSONS_WAIT_MS,
  send: (lessons, done) => tell({ kind: 'lessons', lessons }, done),
})
const learnt = new LearntNames((clientAddress, { name, addresses, endsAtMs }) =>
  lessons.add({ clientAddress, name, addresses, ttlMs: endsAtMs - performance.now() }),
)

async function onMessage(message: ToWorker): Promise<void> {
  switch (message.kind) {
    case 'serve':
      serving = serve(message)
      return await serving
    case 'tell-stats':
      return tellStats()
    case 'lessons':
      return keep(message.lessons)
    case 'prepare-policy':
      return await preparePolicy(message)
    case 'use-policy':
      return usePolicy(message.turn)
    case 'drop-policy':
      return dropPolicy(message.turn)
    case 'stop-accepting':
      return proxy?.stopAccepting()
    case 'drain':
      await proxy?.drain(message.deadlineMs)
      return end()
    case 'close':
      await proxy?.close()
      return end()
  }
}

async function serve({ config, sockets, ...wanted }: Extract<ToWorker, { kind: 'serve' }>): Promise<void> {
  try {
    for (const { tcp, udp } of sockets) for (const fd of [tcp, udp]) if (fd !== undefined) setCloseOnExec(fd)
    const note = (line: string): void => tell({ kind: 'note', line })
    if (config.program !== undefined) surviveStrayErrors(note)
    const { hooks, apps } = config.program === undefined ? config : await loadProgram(config.program)
    proxy = createProxy({ ...config, ...(hooks && { hooks }), ...(apps && { apps }) }, learnt)
    proxy.on('note', note)
    proxy.on('bypass', (destination, forMs) => tell({ kind: 'bypass', destination, forMs }))
    if (wanted.records) proxy.on('flow', (record) => records.add(record))
    await proxy.listen(sockets)
    tellStats()
    tell({ kind: 'listening' })
    setInterval(tellStats, STATS_EVERY_MS).unref()
    if (hooks !== undefined) tellTurns(hooks.computingMs, proxy.hookComputingAt!)
  } catch (error) {
    tell({ kind: 'failed', ...toldError(error) }, () => process.exit(1))
  }
}

async function preparePolicy({ turn, policy, shadow }: Extract<ToWorker, { kind: 'prepare-policy' }>): Promise<void> {
  await serving // it begins with a policy of its own
  if (proxy === undefined) return // it could not, and ends: that is answer enough
  try {
    const policies = await proxy.preparePolicy(policy, shadow)
    if (turn <= lastDropped) return await policies.close()
    prepared = { turn, policies }
    tell({ kind: 'policy-answer', turn, error: undefined })
  } catch (error) {
    tell({ kind: 'policy-answer', turn, error: toldError(error) })
  }
}

function usePolicy(turn: number): void {
  if (prepared?.turn === turn) {
    void proxy!.swapPolicy(prepared.policies)
    prepared = undefined
  }
  tell({ kind: 'policy-answer', turn, error: undefined })
}

function dropPolicy(turn: number): void {
  lastDropped = turn
  void prepared?.policies.close()
  prepared = undefined
}

function toldError(error: unknown): ToldError {
  const { code, cure } = error instanceof LimpidError ? error : { code: undefined, cure: undefined }
  return { code, message: (error as Error).message, cure }
}

function keep(lessons: readonly ToldLesson[]): void {
  const now = performance.now()
  for (const { clientAddress, name, addresses, ttlMs } of lessons) {
    learnt.keep(clientAddress, newLesson(name, addresses, now + ttlMs), now)
  }
}

function tellStats(): void {
  if (proxy !== undefined) tell({ kind: 'stats', stats: proxy.stats(), recordsDropped: records.dropped })
}

/** Who does not hear of it for `computingMs` knows that a hook does not come to an end. */
function tellTurns(computingMs: number, computingAt: number): void {
  if (computingMs === 0) return
  tell({ kind: 'turns', computingAt })
  setInterval(() => tell({ kind: 'turns', computingAt }), computingMs / TURNS_TOLD).unref()
}

/** What it has to say is said, then the channel is closed: nothing else keeps the process alive. */
function end(): void {
  records.flush()
  tellStats()
  process.disconnect()
}

function tell(message: FromWorker, done: () => void = () => {}): void {
  if (process.connected) process.send!(message, done)
}
