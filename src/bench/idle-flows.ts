import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import { descriptorLimit } from '../sys/descriptors.ts'
import { ECHO_PORT } from './ports.ts'
import type { Subject } from './suite.ts'

const PROCESS = fileURLToPath(new URL('./idle-flows-process.js', import.meta.url))
const OPEN_TIMEOUT_MS = 30_000
const WANTED_FLOWS = 10_000
const DESCRIPTORS_PER_FLOW = 2 // of a proxy: client and upstream
const OTHER_DESCRIPTORS = 1_024 // pipes, listeners, logs, what each program keeps free

/** So many flows as every proxy may hold with this limit of descriptors. */
export const IDLE_FLOWS = Math.min(
  WANTED_FLOWS,
  Math.max(0, Math.floor((descriptorLimit() - OTHER_DESCRIPTORS) / DESCRIPTORS_PER_FLOW)),
)

/**
 * Holds flows open through a subject, each of which has carried a message and its reply, while `work` runs.
 * @throws LimpidError LIMPID_LAB when they do not come up, or one has a wrong byte.
 */
export async function withIdleFlows<T>(subject: Subject, flows: number, work: () => Promise<T>): Promise<T> {
  const args = [PROCESS, subject.dialled, String(ECHO_PORT), String(flows)]
  const child = subject.topology.y.spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  try {
    const opened = once(child.stdout!, 'data', { signal: AbortSignal.timeout(OPEN_TIMEOUT_MS) })
    await Promise.race([opened, ended])
    if (child.exitCode !== null) throw new LimpidError('LIMPID_LAB', `${subject.name}: ${flows} flows do not come up`)
    return await work()
  } finally {
    child.kill('SIGKILL')
    await ended
  }
}
