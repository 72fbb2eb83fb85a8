// One worker, as a process of its own: relays what its sockets bring until the supervisor says otherwise, or is gone.
import { createProxy } from '../apps/create-proxy.ts'
import { LimpidError } from '../errors.ts'
import type { TransparentProxy } from '../proxy/proxy.ts'
import { setCloseOnExec } from '../sys/descriptors.ts'
import { RecordBatch } from './record-batch.ts'
import type { FromWorker, ToWorker } from './worker-messages.ts'

const STATS_EVERY_MS = 1_000

// the terminal's signals come to the whole group, and the supervisor decides what they mean; SIGUSR1 would open the debugger
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const)
  process.on(signal, () => {})
process.on('disconnect', () => process.exit()) // the supervisor is gone, and its rules with it
process.on('message', (message: ToWorker) => void onMessage(message))

let proxy: TransparentProxy | undefined
let batch: RecordBatch | undefined

async function onMessage(message: ToWorker): Promise<void> {
  switch (message.kind) {
    case 'serve':
      return await serve(message)
    case 'tell-stats':
      return tellStats()
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

async function serve({ config, sockets, records }: Extract<ToWorker, { kind: 'serve' }>): Promise<void> {
  try {
    for (const { tcp, udp } of sockets) for (const fd of [tcp, udp]) if (fd !== undefined) setCloseOnExec(fd)
    proxy = createProxy(config)
    proxy.on('note', (line) => tell({ kind: 'note', line }))
    if (records) {
      batch = new RecordBatch((records, done) => tell({ kind: 'flows', records }, done))
      proxy.on('flow', (record) => batch!.add(record))
    }
    await proxy.listen(sockets)
    tellStats()
    tell({ kind: 'listening' })
    setInterval(tellStats, STATS_EVERY_MS).unref()
  } catch (error) {
    const { code, cure } = error instanceof LimpidError ? error : { code: undefined, cure: undefined }
    tell({ kind: 'failed', code, message: (error as Error).message, cure }, () => process.exit(1))
  }
}

function tellStats(): void {
  if (proxy !== undefined) tell({ kind: 'stats', stats: proxy.stats(), recordsDropped: batch?.dropped ?? 0 })
}

/** What it has to say is said, then the channel is closed: nothing else keeps the process alive. */
function end(): void {
  batch?.flush()
  tellStats()
  process.disconnect()
}

function tell(message: FromWorker, done: () => void = () => {}): void {
  if (process.connected) process.send!(message, done)
}
