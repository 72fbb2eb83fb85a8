import type { ListenerConfig } from '../config/types.ts'
import type { ShadowStats } from '../policy/shadow.ts'
import type { App } from './app.ts'
import type { ProxyContext } from './context.ts'
import type { DialCounters } from './dial.ts'
import { type DatagramCounters, type DropReason, newDatagramCounters } from './drops.ts'
import { type HookStats, NO_HOOK_STATS } from './flow-hooks.ts'
import type { HostChecks } from './host-check.ts'
import type { Moved } from './open-record.ts'
import type { PoolServerStats } from './pool.ts'
import type { CloseReason } from './record.ts'
import type { UdpSessions } from './udp-sessions.ts'

/** Counters since the proxy was made, and gauges of this moment. */
export interface ProxyStats extends DialCounters, HookStats {
  readonly flowsOpen: number
  readonly flowsLimit: number
  readonly flowsTotal: number
  readonly endedBy: Readonly<Partial<Record<CloseReason, number>>>
  readonly bytesClientToUpstream: number
  readonly bytesUpstreamToClient: number
  /** Bytes that wait in our memory for slow receivers. */
  readonly waitingBytes: number
  readonly pipesOpen: number
  readonly acceptBackoffs: number
  /** UDP sessions of this moment, and how many there may be. */
  readonly sessionsOpen: number
  readonly sessionsLimit: number
  readonly sessionPortFallbacks: number
  readonly evictions: number
  readonly datagramsClientToUpstream: number
  readonly datagramsUpstreamToClient: number
  /** Datagrams that went no further, by reason; those with none are left out. */
  readonly datagramsDropped: Readonly<Partial<Record<DropReason, number>>>
  /** ICMP errors: from servers and routers, passed on to clients, from clients, passed on to servers. */
  readonly errorsFromUpstream: number
  readonly errorsToClient: number
  readonly errorsFromClient: number
  readonly errorsToUpstream: number
  readonly replySockets: number
  /** Answers that left by a raw socket. */
  readonly rawDatagrams: number
  /** Flows and sessions whose host was compared with their address, by what was found. */
  readonly hostChecks: HostChecks
  /** Undefined without a shadow policy. */
  readonly shadow: ShadowStats | undefined
  /** The pools of the policy: by the pool's name, by the server's address and port. */
  readonly pools: Readonly<Record<string, Readonly<Record<string, PoolServerStats>>>>
  /** What apps have counted: those of listeners by the listener's name, those of rules by their own. */
  readonly apps: Readonly<Record<string, Readonly<Record<string, number>>>>
}

/** What the flows that have begun and ended come to. */
export class FlowCounts {
  readonly #endedBy: Partial<Record<CloseReason, number>> = {}
  #begun = 0
  #bytesClientToUpstream = 0
  #bytesUpstreamToClient = 0

  /** Counts a flow or session that begins. Its id. */
  begin(): number {
    return ++this.#begun
  }

  end(reason: CloseReason, moved: Moved | undefined): void {
    this.#endedBy[reason] = (this.#endedBy[reason] ?? 0) + 1
    this.#bytesClientToUpstream += moved?.bytesClientToUpstream ?? 0
    this.#bytesUpstreamToClient += moved?.bytesUpstreamToClient ?? 0
  }

  get stats(): Pick<ProxyStats, 'flowsTotal' | 'endedBy' | 'bytesClientToUpstream' | 'bytesUpstreamToClient'> {
    return {
      flowsTotal: this.#begun,
      endedBy: { ...this.#endedBy },
      bytesClientToUpstream: this.#bytesClientToUpstream,
      bytesUpstreamToClient: this.#bytesUpstreamToClient,
    }
  }
}

/** What a proxy knows beside what its flows share. */
type OwnStats = Pick<ProxyStats, 'pipesOpen' | 'shadow' | 'apps' | 'acceptBackoffs'>

/** `udp`: undefined without a listener for UDP. */
export function proxyStats(
  { budget, counters, flows, resources, hooks, hostCheck, pools }: ProxyContext,
  counts: FlowCounts,
  udp: UdpSessions | undefined,
  { pipesOpen, shadow, apps, acceptBackoffs }: OwnStats,
): ProxyStats {
  return {
    ...counters,
    ...(hooks?.stats ?? NO_HOOK_STATS),
    flowsOpen: flows.size,
    flowsLimit: budget.flows,
    ...counts.stats,
    waitingBytes: resources.waitingBytes,
    pipesOpen,
    ...datagramStats(udp, budget.sessions),
    hostChecks: hostCheck.counts,
    shadow,
    pools: pools.stats(),
    apps,
    acceptBackoffs,
  }
}

type CountedDatagrams = Omit<DatagramCounters, 'dropped'> &
  Pick<ProxyStats, 'datagramsDropped' | 'sessionsOpen' | 'sessionsLimit' | 'replySockets' | 'rawDatagrams'>

/** `limit`: how many sessions there may be. */
function datagramStats(udp: UdpSessions | undefined, limit: number): CountedDatagrams {
  const { dropped, ...counters } = udp?.counters ?? newDatagramCounters()
  return {
    ...counters,
    datagramsDropped: Object.fromEntries(Object.entries(dropped).filter(([, count]) => count > 0)),
    sessionsOpen: udp?.open ?? 0,
    sessionsLimit: udp === undefined ? 0 : limit,
    replySockets: udp?.replySockets ?? 0,
    rawDatagrams: udp?.rawDatagrams ?? 0,
  }
}

/** Of apps: those of listeners; of the others, by their name, those that were used. */
export function appStats(
  ofListeners: ReadonlyMap<ListenerConfig, App>,
  named: ReadonlyMap<string, App>,
): ProxyStats['apps'] {
  const stats = [...named].map(([name, app]) => [name, app.stats()] as const)
  const used = stats.filter(([, counters]) => Object.values(counters).some((count) => count > 0))
  return Object.fromEntries([...used, ...[...ofListeners].map(([{ name }, app]) => [name, app.stats()] as const)])
}
