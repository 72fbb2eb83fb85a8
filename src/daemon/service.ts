import { availableParallelism } from 'node:os'
import type { ProgramConfig } from '../apps/define-config.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import type { ProxyStats } from '../proxy/stats.ts'

/** What relays: a TransparentProxy in this process, or a WorkerPool. Their words mean the same. */
export interface Service {
  listen(): Promise<readonly Endpoint[]>
  /** Flows are decided by it from now on, and compared with `shadow`, by all that relays or, when it throws, by none. */
  usePolicy(policy: PolicyConfig, shadow?: PolicyConfig): Promise<void>
  stopAccepting(): void
  drain(deadlineMs: number): Promise<void>
  close(): Promise<void>
  stats(): ProxyStats | Promise<ProxyStats>
  on(event: 'flow', listener: (record: FlowRecord) => void): unknown
  on(event: 'note', listener: (line: string) => void): unknown
  on(event: 'bypass', listener: (destination: string, forMs: number) => void): unknown
}

/** `records`: whether flows will be told. Loads what it needs: that takes longer than to find out that it cannot start. */
export async function openService(config: ProgramConfig, options: { readonly records: boolean }): Promise<Service> {
  const workers = workerCount(config)
  if (workers === 1 && !isWatched(config)) {
    const { createProxy } = await import('../apps/create-proxy.ts')
    return createProxy(config)
  }
  const { WorkerPool } = await import('./worker-pool.ts')
  return new WorkerPool(config, { workers, records: options.records })
}

/** Nothing can interrupt a hook that computes without end but another process, which ends its own: then a worker relays, also where there is one. */
function isWatched({ hooks, program }: ProgramConfig): boolean {
  return program !== undefined && hooks !== undefined && hooks.computingMs > 0
}

/** Processes that relay on this host. */
export function workerCount({ workers }: Config): number {
  return workers === 'auto' ? availableParallelism() : workers
}
