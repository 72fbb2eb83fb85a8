import type { Onward, Rejection } from '../config/policy-types.ts'
import type { Timeouts } from '../config/types.ts'
import type { Finding, FlowFacts, FlowLink } from '../policy/facts.ts'
import { type RelayOwner, TcpRelay } from '../relay/tcp.ts'
import { EPOLLERR, type EventTarget, type Watch } from '../sys/loop.ts'
import { setKeepalive, setResetOnClose } from '../sys/options.ts'
import type { FirstBytes } from '../sys/socket.ts'
import { countClient, type Parties } from './admission.ts'
import type { StreamApp } from './app.ts'
import { type Served, ServedStream } from './app-stream.ts'
import type { ByteShare } from './byte-rates.ts'
import { tellProhibited } from './client-errors.ts'
import type { ProxyContext } from './context.ts'
import { Deciding, type FinalDecision, type TurnedAway } from './deciding.ts'
import { forbid } from './forbidden.ts'
import { type Identity, OpenRecord } from './open-record.ts'
import { type Opened, Opening, type Way } from './opening.ts'
import type { PoolPlace } from './pool.ts'
import type { CloseReason, PolicyReason } from './record.ts'
import { isAsDialled } from './same-way.ts'
import { Shadowing } from './shadowing.ts'
import type { Target } from './target.ts'
import { timeoutsOf } from './timeouts.ts'

/**
 * One TCP flow, between accept and its record. Each step calls the next one, or is called back by the loop; nothing waits for a
 * promise, and what is held while the flow is idle is this object, its relay and two watches.
 */
export class Flow extends OpenRecord implements Parties, EventTarget, Opened, Served, RelayOwner {
  /** The client's socket until the relay takes it. */
  readonly watch: Watch
  #deciding: Deciding | undefined
  /** Looks at the first bytes of a client that was silent, when they come. */
  #late: Deciding | undefined
  /** Why what it said then ended the flow. */
  #lateReason: PolicyReason | undefined
  #shadowing: Shadowing | undefined
  /** Until the relay takes over. */
  #opening: Opening | undefined
  place: PoolPlace | undefined
  timeouts: Timeouts
  /** Of what its rule lets through in a time. */
  #share: ByteShare | undefined
  #relay: TcpRelay | undefined
  /** Epoll's reports about the client until the relay takes over: edge-triggered, they do not come again. */
  #clientEvents = 0
  isStopping = false
  /** The upstream's silent death will be noticed. */
  #watchesPeer = false
  /** In place of the relay, where an app serves the flow. */
  #served: ServedStream | undefined
  /** Takes away the client's socket from who has it meanwhile. */
  #abandon: (() => void) | undefined

  /** `watch`: of the accepted socket, which it takes, for RELAY_EVENTS. */
  constructor(watch: Watch, identity: Identity, target: Target | undefined, context: ProxyContext) {
    super(identity, target, context)
    this.timeouts = this.listener.timeouts
    this.watch = watch
    watch.target = this
    context.flows.add(this)
    countClient(context.flowsByClient, this.client.address, 1)
  }

  /** By which link the client came; undefined where no rule asks about it. Of the client's socket, which is still here. */
  link(): FlowLink | undefined {
    const { policy, shadow, links } = this.context
    const isAsked = policy()?.asksLink === true || shadow()?.policy.asksLink === true
    return isAsked ? links.ofSocket(this.watch.fd, this.reached.address, this.client.address) : undefined
  }

  /** What the client says first is looked at yet, and stays in its socket. */
  get isHeld(): boolean {
    return this.#late !== undefined
  }

  /** Asks the policy, where there is one. */
  decide(): void {
    const { policy, namesOf, hooks, hostCheck, peeks } = this.context
    const asked = policy()
    if (asked === undefined) {
      this.dial()
      return
    }
    const known = { learntNames: namesOf(this.client.address, this.originalDst.address), link: this.link() }
    this.#deciding = new Deciding(this, asked, { known, hooks, hostCheck, peeks })
    this.#deciding.begin(this.watch.fd)
  }

  onDecided(decided: FinalDecision, facts: FlowFacts, late: Deciding | undefined): void {
    const { rule, decision } = decided
    this.#deciding = undefined
    this.#late = late
    this.#note(decided, facts, late !== undefined)
    if (decision.kind === 'reject') {
      this.#reject(decision.rejection)
      return
    }
    if (decision.kind === 'bypass') {
      this.context.onBypass(this.originalDst.address, decision.forMs)
      this.dial()
      return
    }
    this.way = decision
    this.#obey(decision, rule)
    if (!this.#isWithin(decision, rule)) this.resetClient('policy-limit')
    else if (decision.kind === 'handle') this.#handle(decision.app)
    else this.dial()
  }

  /** `isSilent`: it is decided anew when the client says something. */
  #note(decided: FinalDecision, facts: FlowFacts, isSilent: boolean): void {
    this.rule = decided.rule
    this.finding = facts.finding
    const shadow = this.context.shadow()
    if (shadow !== undefined) this.#shadowing = new Shadowing(shadow, facts, decided, isSilent)
  }

  #isWithin({ limit }: Way, rule: string | undefined): boolean {
    const { rates, resources } = this.context
    return limit === undefined || rates.admits(rule, limit, this.client.address, resources.loop.now)
  }

  /** Its patience and its pace are those of the rule that decided last. */
  #obey({ timeouts, limit }: Onward, rule: string | undefined): void {
    this.timeouts = timeoutsOf(this.listener, timeouts)
    const share = this.context.byteRates.enter(rule, limit, this.client.address, this.context.resources.loop.now)
    this.#share?.leave()
    this.#share = share
    if (this.#relay !== undefined) this.#relay.slowTo(share)
  }

  #reject(rejection: Rejection): void {
    if (rejection === 'forbidden' && this.finding?.protocol === 'http1') {
      this.#forbid()
      return
    }
    const { client, reached, watch } = this
    if (rejection === 'unreachable') tellProhibited({ fd: watch.fd, client, reached }, this.context.clientErrors)
    this.resetClient('policy')
  }

  /** The client gets a page, and time to read it. */
  #forbid(): void {
    this.#shadowing?.look(this.watch.fd)
    this.context.resources.loop.remove(this.watch)
    const { closed, abandon } = forbid(this.watch.fd, this.rule)
    this.#abandon = abandon
    void closed.then(() => this.close('policy'))
  }

  onTurnedAway(why: TurnedAway, finding?: Finding): void {
    this.finding = finding ?? this.finding
    this.#deciding = undefined
    if (this.#relay === undefined && this.#served === undefined) this.resetClient(why)
    else this.#endLate(why)
  }

  /** Opens the upstream. */
  dial(): void {
    this.#opening = new Opening(this, this.way, this.context)
    this.#opening.begin()
  }

  onNotOpened(reason: CloseReason, error: string | undefined): void {
    this.dialMs = performance.now() - this.acceptedAt
    this.error = error
    this.resetClient(this.isStopping ? 'shutdown' : reason)
  }

  onOpened(upstream: Watch, events: number, first: FirstBytes | undefined): void {
    this.#opening = undefined
    this.#shadowing?.look(this.watch.fd, first)
    this.dialMs = performance.now() - this.acceptedAt
    this.#relay = new TcpRelay(this.watch, upstream, this.context.resources, this, first)
    if (this.#share !== undefined) this.#relay.slowTo(this.#share)
    if (this.#late !== undefined) {
      this.#relay.holdClient((events) => this.#late?.onEvents(events))
      this.#late.lookOn(this.watch.fd)
    }
    this.#relay.begin(this.#clientEvents, events)
    if (!this.#relay.ended) this.#shadowing?.lookBefore(this.watch)
  }

  #handle(name: string): void {
    const app = this.context.appNamed(name)
    if (app === undefined) {
      this.error = `there is no app ${name}` // a policy of another program
      this.resetClient('app-failed')
    } else this.serve(app)
  }

  /** Gives the client to an app; what it says first is still in its socket. */
  serve(app: StreamApp): void {
    this.#shadowing?.look(this.watch.fd)
    this.#served = new ServedStream(this, app, this.way, this.context, this.isHeld)
    this.#late?.lookOn(this.watch.fd)
    this.#served.begin()
    this.#late?.onEvents(this.#clientEvents) // what came while a hook was asked about its silence is not told again
  }

  onDialled(): void {
    if (this.dialMs === 0) this.dialMs = performance.now() - this.acceptedAt
  }

  /** The server has been dialled, so that a decision to go elsewhere comes too late. */
  onDecidedLate(decided: FinalDecision, facts: FlowFacts): void {
    const { rule, decision } = decided
    this.#late = undefined
    this.#note(decided, facts, false)
    if (decision !== this.way && !isAsDialled(decision, this)) this.#endLate('policy')
    else if (decision === this.way || (decision.kind !== 'forward' && decision.kind !== 'handle')) this.#passLate()
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

  #endLate(reason: PolicyReason): void {
    this.#lateReason = reason
    this.#relay?.end('shutdown')
    this.#served?.end(reason)
  }

  /** Of the client, before there is a relay. */
  onEvents(events: number): void {
    this.#clientEvents |= events
    if ((events & EPOLLERR) === 0) (this.#deciding ?? (this.#served && this.#late))?.onEvents(events)
    else if (this.#deciding !== undefined) this.#endUndecided('client-gone')
    else if (this.#served !== undefined) this.#served.end('client-reset')
    else this.#opening?.abandon() // nobody waits for the answer any more
  }

  /** Every second or so while the flow lives: ends it when a timeout has passed. `now`: monotonic milliseconds. */
  sweep(now: number): void {
    const relay = this.#relay
    this.#served?.expire(now, this.timeouts)
    if (relay === undefined) return // a dial has its own timer
    relay.expire(now, this.timeouts)
    if (this.#watchesPeer || relay.ended || now - this.acceptedAt < WATCH_PEER_AFTER_MS) return
    this.#watchesPeer = true
    const { deadPeerMs } = this.timeouts
    if (deadPeerMs > 0) setKeepalive(relay.upstreamFd, deadPeerMs)
    // else the client's socket has it from its listener
    if (deadPeerMs !== this.listener.timeouts.deadPeerMs) setKeepalive(this.watch.fd, deadPeerMs)
  }

  /** Ends the flow now, with a reset to both peers. */
  stop(): void {
    this.isStopping = true
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

  onServed(reason: CloseReason, error: string | undefined): void {
    this.error = error
    this.onRelayEnd(reason)
  }

  onRelayEnd(reason: CloseReason): void {
    this.#late?.stop()
    this.close(this.#lateReason ?? reason)
  }

  /** Ends a flow that has no upstream: the client is told by a reset, never by silence. */
  resetClient(reason: CloseReason): void {
    this.#shadowing?.look(this.watch.fd)
    setResetOnClose(this.watch.fd)
    this.context.resources.loop.close(this.watch)
    this.close(reason)
  }

  /** All sockets are closed: tells the record. */
  close(reason: CloseReason): void {
    const context = this.context
    this.#shadowing?.end(this.#relay?.bytesClientToUpstream === 0)
    this.place?.leave()
    this.#share?.leave()
    context.flows.delete(this)
    countClient(context.flowsByClient, this.client.address, -1)
    const moved = this.#relay ?? this.#served
    context.onFlowEnd(reason, moved, () => this.toRecord(reason, moved, this.#shadowing?.difference))
  }
}

/** How old a flow gets before its upstream is watched for a silent death: four system calls that short flows save. */
const WATCH_PEER_AFTER_MS = 1_000
