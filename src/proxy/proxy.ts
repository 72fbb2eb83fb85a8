import { EventEmitter } from 'node:events'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config, ListenerConfig, Protocol, Timeouts } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import type { Endpoint } from '../net/address.ts'
import { Policies } from '../policy/policies.ts'
import { ShadowCounts, type ShadowStats } from '../policy/shadow.ts'
import { MessageBatch } from '../relay/message-batch.ts'
import { descriptorLimit } from '../sys/descriptors.ts'
import { SyscallError } from '../sys/errno.ts'
import { localPortRange } from '../sys/local-ports.ts'
import { eventLoop } from '../sys/loop.ts'
import { OwnAddresses } from '../sys/own-addresses.ts'
import { PipePool } from '../sys/pipes.ts'
import { type Accepted, closeFd } from '../sys/socket.ts'
import type { App, Apps } from './app.ts'
import { type BoundSockets, bindSockets, closeSockets, markOf } from './bound-sockets.ts'
import { MAX_WAITING_BYTES, PIPE_BYTES, planBudget } from './budget.ts'
import { ByteRates } from './byte-rates.ts'
import { ClientErrors } from './client-errors.ts'
import { ClientLinks } from './client-links.ts'
import type { ProxyContext } from './context.ts'
import type { DialCounters } from './dial.ts'
import { type DropReason, newDatagramCounters } from './drops.ts'
import { FlowHooks, type HookStats, NO_HOOK_STATS } from './flow-hooks.ts'
import { HostCheck, type HostChecks } from './host-check.ts'
import { TcpListener } from './listener.ts'
import { openFlow } from './open-flow.ts'
import type { PoolServerStats } from './pool.ts'
import { Pools } from './pools.ts'
import { type HeaderOutcome, HeaderWait, sendsHeader } from './proxy-header.ts'
import { Questions } from './questions.ts'
import { RateLimits } from './rate-limits.ts'
import type { CloseReason, FlowRecord } from './record.ts'
import { SourcePorts } from './source-ports.ts'
import { resolveTarget, type Target } from './target.ts'
import { sweepInterval } from './timeouts.ts'
import { UdpSessions } from './udp-sessions.ts'

const IDLE_PIPES = 32
const CLOSE_MS = 1_000

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

interface ProxyEvents {
  /** Once for each flow, when it has ended. */
  flow: [record: FlowRecord]
  /** A rule's decision was to bypass: for `forMs` the kernel may forward to that address by itself. */
  bypass: [destination: string, forMs: number]
  /** A line for the operator: something that works, though not as it might. */
  note: [line: string]
}

/** A transparent proxy in this process. It touches no kernel rules: see planRuleset and installRuleset. */
export class TransparentProxy extends EventEmitter<ProxyEvents> {
  readonly #config: Config
  readonly #apps: Apps
  readonly #appOf = new Map<ListenerConfig, App>()
  readonly #named: ReadonlyMap<string, App>
  readonly #context: ProxyContext
  readonly #pipes: PipePool
  readonly #messages = new MessageBatch(eventLoop)
  readonly #listeners: TcpListener[] = []
  readonly #endedBy: Partial<Record<CloseReason, number>> = {}
  /** Undefined without a listener for UDP. */
  readonly #udp: UdpSessions | undefined
  #policies: Policies | undefined
  readonly #shadowCounts = new ShadowCounts()
  #sweep: NodeJS.Timeout | undefined
  #sweepMs = Number.POSITIVE_INFINITY
  #listening = false
  #closed = false
  #flowsTotal = 0
  #bytesClientToUpstream = 0
  #bytesUpstreamToClient = 0

  /** `apps`: what serves the flows of some listeners; see createProxy(). */
  constructor(config: Config, apps: Apps = { appOf: () => undefined }) {
    super()
    this.#config = config
    if (!config.ioUring) eventLoop.refuseRing()
    this.#apps = apps
    const serves = (protocol: Protocol) => config.listeners.some(({ protocols }) => protocols.includes(protocol))
    const served = { tcp: serves('tcp'), udp: serves('udp') }
    const budget = planBudget(config.limits, descriptorLimit(), served)
    this.#pipes = new PipePool({ limit: budget.pipes, keepIdle: IDLE_PIPES, capacity: PIPE_BYTES })
    const ports = new SourcePorts(localPortRange())
    const mark = markOf(config)
    this.#context = {
      resources: { loop: eventLoop, pipes: this.#pipes, messages: this.#messages, waitingBytes: 0 },
      budget,
      limits: config.limits,
      own: new OwnAddresses(),
      counters: { dials: 0, sourcePortFallbacks: 0, sourcePortSearches: 0 },
      ports,
      mark,
      listening: [],
      flows: new Set(),
      awaited: new Set(),
      flowsByClient: new Map(),
      nameOf: (client, server) => this.#apps.names?.namesOf(client, server, performance.now())[0],
      policy: () => this.#policies?.live,
      shadow: () => this.#policies?.shadow,
      appNamed: (name) => this.#named.get(name)?.streams,
      hooks: apps.hooks && new FlowHooks(apps.hooks, config.rules.markMask, (line) => this.emit('note', line)),
      hostCheck: new HostCheck(config.listeners, (line) => this.emit('note', line)),
      pools: new Pools({ loop: eventLoop, ports, mark, note: (line) => this.emit('note', line) }),
      clientErrors: new ClientErrors(replyMarkOf(mark, config)),
      links: new ClientLinks(),
      rates: new RateLimits(),
      byteRates: new ByteRates(eventLoop),
      namesOf: (client, server) => this.namesOf(client, server),
      onBypass: (destination, forMs) => this.emit('bypass', destination, forMs),
      tellsFlows: () => this.listenerCount('flow') > 0,
      onFlowEnd: (record) => this.#onFlowEnd(record),
    }
    for (const listener of config.listeners) {
      const app = apps.appOf(listener, new Questions(listener.name, this.#context))
      if (app !== undefined) this.#appOf.set(listener, app)
    }
    this.#named = apps.named?.(this.#context.hooks) ?? new Map()
    if (served.udp) this.#udp = this.#makeUdp(config)
  }

  #makeUdp(config: Config): UdpSessions {
    return new UdpSessions(this.#context, {
      replyMark: replyMarkOf(this.#context.mark, config),
      listeners: config.listeners,
      nextId: () => ++this.#flowsTotal,
      note: (line) => this.emit('note', line),
    })
  }

  /**
   * Resolves the names in the config and opens every listener, or none. Takes `sockets`, where somebody has bound them
   * before (bindSockets()); closes them also when it throws.
   * @returns the addresses listened on, in the order of the config (a port 0 is filled in).
   * @throws LimpidError LIMPID_LISTEN, LIMPID_CAPABILITY or LIMPID_HOST_NAME.
   */
  async listen(sockets?: readonly BoundSockets[]): Promise<readonly Endpoint[]> {
    if (this.#listening) throw new LimpidError('LIMPID_USAGE', 'this proxy listens already', { cure: 'listen() once' })
    this.#listening = true
    const waiting: BoundSockets[] = [...(sockets ?? [])]
    try {
      await this.usePolicy(this.#config.policy, this.#config.shadow)
      const targets = await Promise.all(this.#config.listeners.map(resolveTarget))
      if (this.#closed) {
        throw new LimpidError('LIMPID_USAGE', 'this proxy was closed', { cure: 'make a new one with createProxy()' })
      }
      if (sockets === undefined) waiting.push(...bindSockets(this.#config))
      this.#config.listeners.forEach((listener, index) => {
        for (const _ of listener.listen) this.#openListener(listener, waiting.shift()!, targets[index])
      })
    } catch (error) {
      closeSockets(waiting)
      this.stopAccepting()
      throw error
    }
    this.#sweepEvery(Math.min(this.#sweepMs, sweepInterval(this.#config.listeners.map(({ timeouts }) => timeouts))))
    return this.#context.listening
  }

  /**
   * Decides flows by another policy from now on; flows that are decided go on as they are. Its lists are read before: when one cannot be
   * read the former policy stays. `shadow`: a policy that is only asked, and compared with it.
   * @throws ListError with what is wrong with a list.
   */
  async usePolicy(policy: PolicyConfig, shadow?: PolicyConfig): Promise<void> {
    await this.swapPolicy(await this.preparePolicy(policy, shadow))
  }

  /** The first half of usePolicy(): reads the lists, and changes nothing. What it returns is swapped in, or closed. @throws ListError */
  async preparePolicy(policy: PolicyConfig, shadow?: PolicyConfig): Promise<Policies> {
    const isAsked = this.#context.hooks !== undefined // about what no rule asks, too
    return await Policies.open({ policy, shadow, isAsked }, this.#shadowCounts, (line) => this.emit('note', line))
  }

  /** The second half: takes `policies`, by which flows are decided when this returns its promise. */
  async swapPolicy(policies: Policies): Promise<void> {
    if (this.#closed) return await policies.close()
    const former = this.#policies
    this.#policies = policies
    this.#context.pools.use(policies.pools)
    this.#udp?.wantLinks(policies.asksLink)
    this.#context.rates.clear()
    this.#expect(policies.timeouts)
    await former?.close()
  }

  /** Flows with these timeouts may begin, while those with others go on. */
  #expect(timeouts: readonly Partial<Timeouts>[]): void {
    this.#udp?.expect(timeouts)
    const sweepMs = sweepInterval(timeouts)
    if (sweepMs >= this.#sweepMs) return
    if (this.#sweep === undefined) this.#sweepMs = sweepMs
    else this.#sweepEvery(sweepMs)
  }

  #sweepEvery(ms: number): void {
    clearInterval(this.#sweep)
    this.#sweepMs = ms
    this.#sweep = setInterval(() => this.#expireFlows(), ms)
  }

  /** Stops listening at once; connections that wait in the backlog are reset by the kernel. */
  stopAccepting(): void {
    for (const listener of this.#listeners) listener.close()
    this.#udp?.stopBeginning()
  }

  /** Takes what waits in the backlog, stops accepting, waits for the flows to end, and after `deadlineMs` ends those that are left. */
  async drain(deadlineMs: number): Promise<void> {
    this.#closed = true
    for (const listener of this.#listeners) listener.takeBacklog()
    this.stopAccepting()
    const deadlineAt = performance.now() + deadlineMs
    while (this.#beginnings > 0 && performance.now() < deadlineAt) await oneFlowEnds(this, deadlineAt)
    await this.#udp?.quiet(deadlineAt - performance.now())
    await this.close()
  }

  /** Stops at once: every flow is reset. When it returns, each has had its record and no descriptor is left. */
  async close(): Promise<void> {
    this.#closed = true
    this.stopAccepting()
    clearInterval(this.#sweep)
    for (const wait of this.#context.awaited) wait.abandon()
    for (const flow of this.#context.flows) flow.stop()
    this.#udp?.close()
    // what an app does ends a little later
    const deadlineAt = performance.now() + CLOSE_MS
    while (this.#beginnings > 0 && performance.now() < deadlineAt) await oneFlowEnds(this, deadlineAt)
    this.#pipes.close()
    await this.#context.hooks?.quiet()
    this.#context.pools.close()
    this.#context.links[Symbol.dispose]()
    this.#context.clientErrors.close()
    this.#context.hostCheck.close()
    await this.#policies?.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** The names by which a client knows a server's address, learnt from the answers of Limpid's DNS; the last learnt first. */
  namesOf(clientAddress: string, serverAddress: string): readonly string[] {
    return this.#apps.names?.namesOf(clientAddress, serverAddress, performance.now()) ?? []
  }

  /** Where the number of the hook that computes stands in memory; undefined without hooks. */
  get hookComputingAt(): number | undefined {
    return this.#context.hooks?.computingAt
  }

  stats(): ProxyStats {
    const { budget, counters, flows, resources } = this.#context
    return {
      ...counters,
      ...(this.#context.hooks?.stats ?? NO_HOOK_STATS),
      flowsOpen: flows.size,
      flowsLimit: budget.flows,
      flowsTotal: this.#flowsTotal,
      endedBy: { ...this.#endedBy },
      bytesClientToUpstream: this.#bytesClientToUpstream,
      bytesUpstreamToClient: this.#bytesUpstreamToClient,
      waitingBytes: resources.waitingBytes,
      pipesOpen: this.#pipes.open,
      ...this.#datagramStats(),
      hostChecks: this.#context.hostCheck.counts,
      shadow: this.#policies?.shadow && this.#shadowCounts.stats,
      pools: this.#context.pools.stats(),
      apps: this.#appStats(),
      acceptBackoffs: this.#listeners.reduce((sum, listener) => sum + listener.backoffs, 0),
    }
  }

  /** Those of listeners; of the others those that were used. */
  #appStats(): Record<string, Readonly<Record<string, number>>> {
    const stats = [...this.#named].map(([name, app]) => [name, app.stats()] as const)
    const used = stats.filter(([, counters]) => Object.values(counters).some((count) => count > 0))
    return Object.fromEntries([...used, ...[...this.#appOf].map(([{ name }, app]) => [name, app.stats()] as const)])
  }

  #datagramStats() {
    const udp = this.#udp
    const { dropped, ...counters } = udp?.counters ?? newDatagramCounters()
    return {
      ...counters,
      datagramsDropped: Object.fromEntries(Object.entries(dropped).filter(([, count]) => count > 0)),
      sessionsOpen: udp?.open ?? 0,
      sessionsLimit: udp === undefined ? 0 : this.#context.budget.sessions,
      replySockets: udp?.replySockets ?? 0,
      rawDatagrams: udp?.rawDatagrams ?? 0,
    }
  }

  /** Takes the sockets. */
  #openListener(listener: ListenerConfig, { at, tcp, udp }: BoundSockets, target: Target | undefined): void {
    try {
      if (tcp !== undefined) this.#listenTcp(tcp, listener, target)
    } catch (error) {
      if (udp !== undefined) closeFd(udp)
      throw error
    }
    if (udp !== undefined) this.#udp!.listen(udp, listener, target, this.#appOf.get(listener)?.datagrams)
    this.#context.listening.push(at)
  }

  #listenTcp(fd: number, listener: ListenerConfig, target: Target | undefined): void {
    const context = this.#context
    const app = this.#appOf.get(listener)?.streams
    const opened = new TcpListener(
      fd,
      context.limits.backlog,
      context.resources.loop,
      () => this.#beginnings < context.budget.flows && context.resources.waitingBytes < MAX_WAITING_BYTES,
      (accepted) => {
        const run = (header?: HeaderOutcome): void =>
          openFlow(++this.#flowsTotal, accepted, listener, { target, app, header }, context)
        if (sendsHeader(listener, accepted.clientAddr)) this.#awaitHeader(accepted, run)
        else run()
      },
    )
    this.#listeners.push(opened)
  }

  #awaitHeader(accepted: Accepted, run: (header: HeaderOutcome) => void): void {
    const { awaited, resources } = this.#context
    try {
      const wait = new HeaderWait(accepted, resources.loop, (header) => {
        awaited.delete(wait)
        run(header)
      })
      awaited.add(wait)
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error // no memory for it in the kernel: the client has had its reset
    }
  }

  /** Flows that there are, and those that are about to be. */
  get #beginnings(): number {
    return this.#context.flows.size + this.#context.awaited.size
  }

  #onFlowEnd(record: FlowRecord): void {
    this.#endedBy[record.reason] = (this.#endedBy[record.reason] ?? 0) + 1
    this.#bytesClientToUpstream += record.bytesClientToUpstream
    this.#bytesUpstreamToClient += record.bytesUpstreamToClient
    for (const listener of this.#listeners) listener.resume()
    this.emit('flow', record)
    this.#context.hooks?.closed(record)
  }

  #expireFlows(): void {
    const now = performance.now()
    for (const flow of this.#context.flows) flow.sweep(now)
    // what waited for memory may go on now
    for (const listener of this.#listeners) listener.resume()
  }
}

/** fwmark of what we send to clients ourselves; 0 when no rules are used. `mark`: that of our other sockets. */
function replyMarkOf(mark: number, { rules }: Config): number {
  return mark === 0 ? 0 : rules.interceptMark
}

/** Waits for the end of the next flow, or for the deadline (the clock is performance.now()). */
function oneFlowEnds(proxy: TransparentProxy, deadlineAt: number): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      proxy.off('flow', done)
      resolve()
    }
    const timer = setTimeout(done, Math.max(0, deadlineAt - performance.now()))
    proxy.on('flow', done)
  })
}
