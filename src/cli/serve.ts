import type { ProgramConfig } from '../apps/define-config.ts'
import type { Reread } from '../daemon/reloads.ts'
import { runDaemon } from '../daemon/run.ts'
import { counted } from '../net/counted.ts'
import { flowJson } from '../proxy/record-json.ts'
import { flowLineFormat, formatBytes } from './flow-line.ts'
import type { Invocation } from './invocation.ts'
import { LineWriter } from './line-writer.ts'
import { note } from './print.ts'

const FLUSH_MS = 1_000 // at the end, for a reader that is merely slow

export interface ServeOptions {
  readonly json: boolean
  /** No flow lines. */
  readonly quiet: boolean
  readonly drainMs: number
  /** The guard of closed listeners stays after a clean stop. */
  readonly keepGuard: boolean
  /** Serve one connection, then end. */
  readonly once: boolean
  /** `limpid stats` can ask it. */
  readonly control: boolean
  /** How its file is read again. */
  readonly reread?: Reread
}

/** Runs the proxy in the foreground until it is told to stop; a line on stdout for each flow that ended. */
export async function serve(config: ProgramConfig, options: ServeOptions, invocation: Invocation): Promise<void> {
  const lines = new LineWriter(process.stdout)
  const format = options.json ? flowJson : flowLineFormat(invocation.colour, { listener: config.listeners.length > 1 })
  const stats = await runDaemon(config, {
    drainMs: options.drainMs,
    keepGuard: options.keepGuard,
    once: options.once,
    control: options.control,
    reread: options.reread,
    onFlow: options.quiet ? undefined : (record) => lines.write(format(record)),
    note: (line) => note(`limpid: ${line}`),
  })
  await lines.flush(FLUSH_MS)
  const moved = `${formatBytes(stats.bytesClientToUpstream)} up, ${formatBytes(stats.bytesUpstreamToClient)} down`
  const dropped = lines.dropped > 0 ? `; ${counted(lines.dropped, 'flow line')} dropped, nobody read them` : ''
  note(`limpid: stopped: ${counted(stats.flowsTotal, 'flow')}, ${moved}${dropped}`)
}
