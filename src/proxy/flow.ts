import type { Decision, Onward, Rejection } from '../config/policy-types.ts'
import type { ListenerConfig, Timeouts } from '../config/types.ts'
import { type Endpoint, sameEndpoint } from '../net/address.ts'
import type { Finding, FlowFacts, FlowLink } from '../policy/facts.ts'
import { RELAY_EVENTS, type RelayOwner, TcpRelay } from '../relay/tcp.ts'
import { SyscallError } from '../sys/errno.ts'
import { EPOLLERR, type EventTarget, type Watch } from '../sys/loop.ts'
import { setKeepalive, setResetOnClose } from '../sys/options.ts'
import { type Accepted, closeFd, type FirstBytes } from '../sys/socket.ts'
import { type Parties, refusalOf } from './admission.ts'
import type { StreamApp } from './app.ts'
import { isAsHandled, type Served, ServedStream } from './app-stream.ts'
import { type Arrival, arrivalOf } from './arrival.ts'
import type { ByteShare } from './byte-rates.ts'
import { tellProhibited } from './client-errors.ts'
import type { ProxyContext } from './context.ts'
import { Deciding, type FinalDecision, type TurnedAway } from './deciding.ts'
import { withPort } from './destination.ts'
import { forbid } from './forbidden.ts'
import type { HostOutcome } from './host-check.ts'
import { AS_LISTENER, type Opened, Opening, type Way } from './opening.ts'
import type { PoolPlace } from './pool.ts'
import type { HeaderOutcome, Told } from './proxy-header.ts'
import { type CloseReason, type FlowRecord, type PolicyReason, REFUSALS, type SourceUsed } from './record.ts'
import { Shadowing } from './shadowing.ts'
import { type DialSource, dialSource } from './source.ts'
import { type Target, upstreamOf } from './target.ts'
import { timeoutsOf } from './timeouts.ts'

/**
 * One flow's life. Takes the accepted socket; it is closed on every path, and the record is told exactly once. `header`: what a proxy in front
 * said before.
 * Opens the record → refuses a loop → decides → dials → relays → closes with one reason. An app serves the flow in place of all from
 * the decision on, or in place of dialling and relaying where that says so.
 */
export function runFlow(
  id: number,
  accepted: Accepted,
  listener: ListenerConfig,
  target: Target | undefined,
  context: ProxyContext,
  { app, header }: { readonly app?: StreamApp | undefined; readonly header?: HeaderOutcome | undefined } = {},
): void {
  const told = header?.kind === 'read' ? header.told : undefined
  const flow = openFlow(id, accepted, listener, target, context, told)
  if (flow === undefined) return // no memory for it in the kernel: the client has had its reset
  const refusal = header?.kind === 'failed' ? header.why : refusalOf(flow, context)
  if (refusal !== undefined) flow.resetClient(refusal)
  else if (app !== undefined) flow.serve(app)
  else flow.decide() // then dial(), and onOpened() relays, until onRelayEnd()
}

function openFlow(
  id: number,
  accepted: Accepted,
  listener: ListenerConfig,
  target: Target | undefined,
  context: ProxyContext,
  told: Told | undefined,
): Flow | undefined {
  try {
    const arrival = askArrival(accepted.fd, listener)
    return new Flow(id, accepted, listener, { ...arrival, ...told }, target, context)
  } catch (error) {
    if (error instanceof SyscallError) return undefined
    throw error
  }
}

/** Resets the client when the kernel does not tell. */
function askArrival(fd: number, listener: ListenerConfig): Arrival {
  try {
    return arrivalOf(fd, listener.intercept)
  } catch (error) {
    setResetOnClose(fd)
    closeFd(fd)
    throw error
  }
}

/**
 * One TCP flow, between accept and its record. Each step calls the next one, or is called back by the loop; nothing waits for a
 * promise, and what is held while the flow is idle is this object, its relay and two watches.
 */
export class Flow implements Parties, EventTarget, Opened, Served, RelayOwner {
  readonly #context: ProxyContext
  readonly id: number
  readonly listener: ListenerConfig
  readonly client: Endpoint
  readonly front: Endpoint | undefined
  /** Our end of the client's connection: the original destination itself, unless rules rewrote it. */
  readonly reached: Endpoint
  readonly originalDst: Endpoint
  upstream: Endpoint
  /** The client's socket until the relay takes it. */
  readonly watch: Watch
  readonly #acceptedAt: number
  #dialMs = 0
  /** Why there was no upstream. */
  #error: string | undefined
  #deciding: Deciding | undefined
  /** Looks at the first bytes of a client that was silent, when they come. */
  #late: Deciding | undefined
  #lateReason: PolicyReason | undefined
  /** What the policy said, and what it was told of the first bytes. */
  #rule: string | undefined
  #finding: Finding | undefined
  hostChecked: HostOutcome | undefined
  #shadowing: Shadowing | undefined
  #way: Way = AS_LISTENER
  /** Until the relay takes over. */
  #opening: Opening | undefined
  place: PoolPlace | undefined
  timeouts: Timeouts
  /** Of what its rule lets through in a time. */
  #share: ByteShare | undefined
  #relay: TcpRelay | undefined
  /** Epoll's reports about the client until the relay takes over: edge-triggered, they do not come again. */
  #clientEvents = 0
  #stopping = false
  /** The upstream's silent death will be noticed. */
  #watchesPeer = false
  /** Whose address the server saw, and which, once there was an answer. */
  sourceUsed: SourceUsed | undefined
  sourceAddr: Endpoint | undefined
  /** In place of the relay, where an app serves the flow. */
  #served: ServedStream | undefined
  /** Takes away the client's socket from who has it meanwhile. */
  #abandon: (() => void) | undefined

  /** @throws SyscallError when the client's socket cannot be watched; it is closed then. */
  constructor(
    id: number,
    { fd, clientAddr }: Accepted,
    listener: ListenerConfig,
    { reached, originalDst, client = clientAddr, front }: Arrival & Partial<Told>,
    target: Target | undefined,
    context: ProxyContext,
  ) {
    this.#context = context
    this.id = id
    this.listener = listener
    this.client = client
    this.front = front
    this.reached = reached
    this.originalDst = originalDst
    this.timeouts = listener.timeouts
    this.upstream = listener.dns?.upstreams[0] ?? upstreamOf(originalDst, target) // the app may take another of them
    this.#acceptedAt = performance.now()
    this.watch = context.resources.loop.take(fd, RELAY_EVENTS, this)
    context.flows.add(this)
    countClient(context.flowsByClient, client.address, 1)
  }

  /** Made when it is asked for: an idle flow does not keep it. */
  get source(): DialSource {
    return dialSource(this.#way.source ?? this.listener.source, this.client)
  }

  /** The name for which the client dials, where one is known. */
  get host(): string | undefined {
    return this.#finding?.host ?? this.#context.nameOf(this.client.address, this.originalDst.address)
  }

  get finding(): Finding | undefined {
    return this.#finding
  }

  get rule(): string | undefined {
    return this.#rule
  }

  /** What the client says first is looked at yet, and stays in its socket. */
  get isHeld(): boolean {
    return this.#late !== undefined
  }

  get isStopping(): boolean {
    return this.#stopping
  }

  /** By which link the client came; undefined where no rule asks about it. Of the client's socket, which is still here. */
  link(): FlowLink | undefined {
    const { policy, shadow, links } = this.#context
    const isAsked = policy()?.asksLink === true || shadow()?.policy.asksLink === true
    return isAsked ? links.ofSocket(this.watch.fd, this.reached.address, this.client.address) : undefined
  }

  /** Asks the policy, where there is one. */
  decide(): void {
    const { policy, namesOf, hooks, hostCheck } = this.#context
    const asked = policy()
    if (asked === undefined) {
      this.dial()
      return
    }
    const { address } = this.client
    const known = { learntNames: namesOf(address, this.originalDst.address), link: this.link() }
    this.#deciding = new Deciding(this, asked, { known, hooks, hostCheck })
    this.#deciding.begin(this.watch.fd)
  }

  onDecided(decided: FinalDecision, facts: FlowFacts, late: Deciding | undefined): void {
    const { rule, decision } = decided
    const { finding } = facts
    this.#compare(decided, facts, late !== undefined)
    this.#deciding = undefined
    this.#late = late
    this.#rule = rule
    this.#finding = finding
    if (decision.kind === 'reject') {
      if (decision.rejection === 'forbidden' && finding?.protocol === 'http1') this.#forbid()
      else this.#reject(decision.rejection)
      return
    }
    if (decision.kind === 'bypass') {
      this.#context.onBypass(this.originalDst.address, decision.forMs)
      this.dial()
      return
    }
    this.#way = decision
    this.#obey(decision, rule)
    if (!this.#isWithin(decision, rule)) this.resetClient('policy-limit')
    else if (decision.kind === 'handle') this.#handle(decision.app)
    else this.dial()
  }

  /** What the client says first stays in its socket for the app. */
  #handle(name: string): void {
    const app = this.#context.appNamed(name)
    if (app !== undefined) {
      this.serve(app)
      return
    }
    this.#error = `there is no app ${name}` // a policy of another program
    this.resetClient('app-failed')
  }

  /** Gives the client to an app. */
  serve(app: StreamApp): void {
    this.#shadowing?.look(this.watch.fd)
    this.#served = new ServedStream(this, app, this.#way, this.#context, this.isHeld)
    this.#late?.lookOn(this.watch.fd)
    this.#served.begin()
  }

  onDialled(): void {
    if (this.#dialMs === 0) this.#dialMs = performance.now() - this.#acceptedAt
  }

  onServed(reason: CloseReason, error: string | undefined): void {
    this.#late?.stop()
    this.#error = error
    this.close(this.#lateReason ?? reason)
  }

  #isWithin({ limit }: Way, rule: string | undefined): boolean {
    const { rates, resources } = this.#context
    return limit === undefined || rates.admits(rule, limit, this.client.address, resources.loop.now)
  }

  /** Its patience and its pace are those of the rule that decided last. */
  #obey({ timeouts, limit }: Onward, rule: string | undefined): void {
    this.timeouts = timeoutsOf(this.listener, timeouts)
    const share = this.#context.byteRates.enter(rule, limit, this.client.address, performance.now())
    this.#share?.leave()
    this.#share = share
    if (this.#relay !== undefined) this.#relay.slowTo(share)
  }

  onTurnedAway(why: TurnedAway, finding?: Finding): void {
    this.#finding = finding ?? this.#finding
    this.#deciding = undefined
    if (this.#relay === undefined && this.#served === undefined) this.resetClient(why)
    else this.#endLate(why)
  }

  /** The server has been dialled, so that a decision to go elsewhere comes too late. */
  onDecidedLate(decided: FinalDecision, facts: FlowFacts): void {
    const { rule, decision } = decided
    this.#compare(decided, facts, false)
    this.#late = undefined
    this.#rule = rule
    this.#finding = facts.finding
    if (decision !== this.#way && !this.#isAsDialled(decision)) this.#endLate('policy')
    else if (decision === this.#way || (decision.kind !== 'forward' && decision.kind !== 'handle')) this.#passLate()
    else if (!this.#isWithin(decision, rule)) this.#endLate('policy-limit')
    else {
      this.#obey(decision, rule)
      this.#passLate()
    }
  }

  /** What the client said first may be read. */
  #passLate(): void {
    this.#relay?.passClient()
    this.#served?.release()
  }

  /** `isSilent`: it is decided anew when the client says something. */
  #compare(decided: FinalDecision, facts: FlowFacts, isSilent: boolean): void {
    const shadow = this.#context.shadow()
    if (shadow !== undefined) this.#shadowing = new Shadowing(shadow, facts, decided, isSilent)
  }

  /** Whether another decision would have dialled the same. */
  #isAsDialled(decision: Decision): boolean {
    const way = this.#way
    if (way.app !== undefined) return decision.kind === 'handle' && isAsHandled(decision, way)
    if (way.via !== undefined) return false
    if (decision.kind !== 'forward') return decision.kind === 'bypass'
    const { to, source, mark, dscp } = decision
    if (to !== undefined && ('pool' in to || !sameEndpoint(withPort(to, this.originalDst), this.upstream))) return false
    return (source === undefined || source === way.source) && mark === way.mark && dscp === way.dscp
  }

  #endLate(reason: PolicyReason): void {
    this.#lateReason = reason
    this.#relay?.end('shutdown')
    this.#served?.end(reason)
  }

  #reject(rejection: Rejection): void {
    const { fd } = this.watch
    if (rejection === 'unreachable')
      tellProhibited({ fd, client: this.client, reached: this.reached }, this.#context.clientErrors)
    this.resetClient('policy')
  }

  /** The client gets a page, and time to read it. */
  #forbid(): void {
    this.#shadowing?.look(this.watch.fd)
    this.#context.resources.loop.remove(this.watch)
    const { closed, abandon } = forbid(this.watch.fd, this.#rule)
    this.#abandon = abandon
    void closed.then(() => this.close('policy'))
  }

  /** Opens the upstream. */
  dial(): void {
    this.#opening = new Opening(this, this.#way, this.#context)
    this.#opening.begin()
  }

  /** Of the client, before there is a relay. */
  onEvents(events: number): void {
    this.#clientEvents |= events
    if ((events & EPOLLERR) === 0) (this.#deciding ?? (this.#served && this.#late))?.onEvents(events)
    else if (this.#deciding !== undefined) this.#endUndecided('client-gone')
    else if (this.#served !== undefined) this.#served.end('client-reset')
    else this.#opening?.abandon() // nobody waits for the answer any more
  }

  onNotOpened(reason: CloseReason, error: string | undefined): void {
    this.#dialMs = performance.now() - this.#acceptedAt
    this.#error = error
    this.resetClient(this.#stopping ? 'shutdown' : reason)
  }

  onOpened(upstream: Watch, events: number, first: FirstBytes | undefined): void {
    this.#opening = undefined
    this.#shadowing?.look(this.watch.fd, first)
    this.#dialMs = performance.now() - this.#acceptedAt
    this.#relay = new TcpRelay(this.watch, upstream, this.#context.resources, this, first)
    if (this.#share !== undefined) this.#relay.slowTo(this.#share)
    if (this.#late !== undefined) {
      this.#relay.holdClient((events) => this.#late?.onEvents(events))
      this.#late.lookOn(this.watch.fd)
    }
    this.#relay.begin(this.#clientEvents, events)
    if (!this.#relay.ended) this.#shadowing?.lookBefore(this.watch)
  }

  /** Every second or so while the flow lives: ends it when a timeout has passed. `now`: monotonic milliseconds. */
  sweep(now: number): void {
    const relay = this.#relay
    this.#served?.expire(now, this.timeouts)
    if (relay === undefined) return // a dial has its own timer
    relay.expire(now, this.timeouts)
    if (this.#watchesPeer || relay.ended || now - this.#acceptedAt < WATCH_PEER_AFTER_MS) return
    this.#watchesPeer = true
    const { deadPeerMs } = this.timeouts
    if (deadPeerMs > 0) setKeepalive(relay.upstreamFd, deadPeerMs)
    // else the client's socket has it from its listener
    if (deadPeerMs !== this.listener.timeouts.deadPeerMs) setKeepalive(this.watch.fd, deadPeerMs)
  }

  /** Ends the flow now, with a reset to both peers. */
  stop(): void {
    this.#stopping = true
    if (this.#deciding !== undefined) this.#endUndecided('shutdown')
    this.#opening?.abandon()
    this.#abandon?.()
    this.#served?.end('shutdown')
    this.#relay?.end('shutdown')
  }

  #endUndecided(reason: CloseReason): void {
    this.#deciding?.stop()
    this.#deciding = undefined
    this.resetClient(reason)
  }

  onRelayEnd(reason: CloseReason): void {
    this.#late?.stop()
    this.close(this.#lateReason ?? reason)
  }

  /** Ends a flow that has no upstream: the client is told by a reset, never by silence. */
  resetClient(reason: CloseReason): void {
    this.#shadowing?.look(this.watch.fd)
    setResetOnClose(this.watch.fd)
    this.#context.resources.loop.close(this.watch)
    this.close(reason)
  }

  /** All sockets are closed: tells the record. */
  close(reason: CloseReason): void {
    const context = this.#context
    this.#shadowing?.end(this.#relay?.bytesClientToUpstream === 0)
    this.place?.leave()
    this.#share?.leave()
    context.flows.delete(this)
    countClient(context.flowsByClient, this.client.address, -1)
    context.onFlowEnd(this.#record(reason))
  }

  #record(reason: CloseReason): FlowRecord {
    const refused = reason in REFUSALS
    const counted = this.#relay ?? this.#served
    const durationMs = performance.now() - this.#acceptedAt
    return {
      id: this.id,
      listener: this.listener.name,
      protocol: 'tcp',
      client: this.client,
      front: this.front,
      originalDst: this.originalDst,
      name: this.#context.nameOf(this.client.address, this.originalDst.address),
      rule: this.#rule,
      shadow: this.#shadowing?.difference,
      detected: this.#finding?.protocol,
      host: this.#finding?.host,
      hostChecked: this.hostChecked,
      upstream: refused ? undefined : this.upstream,
      sourceAddr: this.sourceAddr,
      source: this.sourceUsed ?? (refused ? undefined : this.source.kind),
      bytesClientToUpstream: counted?.bytesClientToUpstream ?? 0,
      bytesUpstreamToClient: counted?.bytesUpstreamToClient ?? 0,
      datagrams: undefined,
      startedAt: Math.round(Date.now() - durationMs),
      dialMs: this.#dialMs,
      durationMs,
      reason,
      error: this.#error,
      refused,
    }
  }
}

/** How old a flow gets before its upstream is watched for a silent death: four system calls that short flows save. */
const WATCH_PEER_AFTER_MS = 1_000

function countClient(counts: Map<string, number>, address: string, by: 1 | -1): void {
  const count = (counts.get(address) ?? 0) + by
  if (count > 0) counts.set(address, count)
  else counts.delete(address)
}
