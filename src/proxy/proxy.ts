import { EventEmitter } from 'node:events'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config, ListenerConfig, Protocol } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import type { Endpoint } from '../net/address.ts'
import { Policies } from '../policy/policies.ts'
import { ShadowCounts } from '../policy/shadow.ts'
import { MessageBatch } from '../relay/message-batch.ts'
import { descriptorLimit } from '../sys/descriptors.ts'
import { localPortRange } from '../sys/local-ports.ts'
import { eventLoop } from '../sys/loop.ts'
import { OwnAddresses } from '../sys/own-addresses.ts'
import { PipePool } from '../sys/pipes.ts'
import { closeFd } from '../sys/socket.ts'
import type { App, Apps } from './app.ts'
import { type BoundSockets, bindSockets, closeSockets, markOf, replyMarkOf } from './bound-sockets.ts'
import { MAX_WAITING_BYTES, PIPE_BYTES, planBudget } from './budget.ts'
import { ByteRates } from './byte-rates.ts'
import { ClientErrors } from './client-errors.ts'
import { ClientLinks } from './client-links.ts'
import type { ProxyContext } from './context.ts'
import { DialBatch } from './dial-batch.ts'
import { FlowHooks } from './flow-hooks.ts'
import { HostCheck } from './host-check.ts'
import { TcpListener } from './listener.ts'
import { openFlows } from './open-flow.ts'
import type { Moved } from './open-record.ts'
import { PeekBatch } from './peek-batch.ts'
import { Pools } from './pools.ts'
import { Questions } from './questions.ts'
import { RateLimits } from './rate-limits.ts'
import type { CloseReason, FlowRecord } from './record.ts'
import { SourcePorts } from './source-ports.ts'
import { appStats, FlowCounts, type ProxyStats, proxyStats } from './stats.ts'
import { Sweep } from './sweep.ts'
import { resolveTarget, type Target } from './target.ts'
import { UdpSessions } from './udp-sessions.ts'

const NO_NAMES: readonly string[] = []
const IDLE_PIPES = 32
const CLOSE_MS = 1_000

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
  readonly #counts = new FlowCounts()
  readonly #udp: UdpSessions | undefined // without a listener for UDP
  #policies: Policies | undefined
  readonly #shadowCounts = new ShadowCounts()
  readonly #sweep = new Sweep(() => this.#expireFlows())
  #listening = false
  #closed = false

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
      dials: new DialBatch(eventLoop),
      peeks: new PeekBatch(eventLoop),
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
      onFlowEnd: (reason, moved, record) => this.#onFlowEnd(reason, moved, record),
    }
    for (const listener of config.listeners) {
      const app = apps.appOf(listener, new Questions(listener.name, this.#context))
      if (app !== undefined) this.#appOf.set(listener, app)
    }
    this.#named = apps.named?.(this.#context.hooks) ?? new Map()
    if (!served.udp) return
    this.#udp = new UdpSessions(this.#context, {
      replyMark: replyMarkOf(mark, config),
      listeners: config.listeners,
      nextId: () => this.#counts.begin(),
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
    this.#sweep.expect(this.#config.listeners.map(({ timeouts }) => timeouts))
    this.#sweep.begin()
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
    this.#udp?.expect(policies.timeouts)
    this.#sweep.expect(policies.timeouts)
    await former?.close()
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
    await this.#flowsEnd(deadlineAt)
    await this.#udp?.quiet(deadlineAt - performance.now())
    await this.close()
  }

  /** Stops at once: every flow is reset. When it returns, each has had its record and no descriptor is left. */
  async close(): Promise<void> {
    this.#closed = true
    this.stopAccepting()
    this.#sweep.stop()
    for (const wait of this.#context.awaited) wait.abandon()
    for (const flow of this.#context.flows) flow.stop()
    this.#udp?.close()
    await this.#flowsEnd(performance.now() + CLOSE_MS) // what an app does ends a little later
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
    return this.#apps.names?.namesOf(clientAddress, serverAddress, performance.now()) ?? NO_NAMES
  }

  /** Where the number of the hook that computes stands in memory; undefined without hooks. */
  get hookComputingAt(): number | undefined {
    return this.#context.hooks?.computingAt
  }

  stats(): ProxyStats {
    return proxyStats(this.#context, this.#counts, this.#udp, {
      pipesOpen: this.#pipes.open,
      shadow: this.#policies?.shadow && this.#shadowCounts.stats,
      apps: appStats(this.#appOf, this.#named),
      acceptBackoffs: this.#listeners.reduce((sum, listener) => sum + listener.backoffs, 0),
    })
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
      () => (context.resources.waitingBytes < MAX_WAITING_BYTES ? context.budget.flows - this.#beginnings : 0),
      (accepted) => openFlows(accepted, listener, { target, app, nextId: () => this.#counts.begin() }, context),
    )
    this.#listeners.push(opened)
  }

  /** Flows that there are, and those that are about to be. */
  get #beginnings(): number {
    return this.#context.flows.size + this.#context.awaited.size
  }

  /** Waits until there is none any more, or for the deadline (the clock is performance.now()). */
  async #flowsEnd(deadlineAt: number): Promise<void> {
    while (this.#beginnings > 0 && performance.now() < deadlineAt) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer)
          this.off('flow', done)
          resolve()
        }
        const timer = setTimeout(done, Math.max(0, deadlineAt - performance.now()))
        this.on('flow', done)
      })
    }
  }

  #onFlowEnd(reason: CloseReason, moved: Moved | undefined, toRecord: () => FlowRecord): void {
    this.#counts.end(reason, moved)
    for (const listener of this.#listeners) listener.resume()
    const { hooks, tellsFlows } = this.#context
    if (hooks === undefined && !tellsFlows()) return
    const record = toRecord()
    this.emit('flow', record)
    hooks?.closed(record)
  }

  #expireFlows(): void {
    const now = performance.now()
    for (const flow of this.#context.flows) flow.sweep(now)
    // what waited for memory may go on now
    for (const listener of this.#listeners) listener.resume()
  }
}
