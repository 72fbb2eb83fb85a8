import type { Rejection } from '../config/policy-types.ts'
import type { Source, Timeouts } from '../config/types.ts'
import type { QuicHello } from '../inspect/quic-initial.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { ShadowDifference } from '../policy/shadow.ts'
import { EACCES, ECONNREFUSED } from '../sys/errno.ts'
import type { ByteShare } from './byte-rates.ts'
import { tellClient } from './client-errors.ts'
import type { FinalDecision } from './deciding.ts'
import { destinationOf, isOnward, likelyUpstream } from './destination.ts'
import type { DropReason } from './drops.ts'
import type { FlowHooks, HookAnswer } from './flow-hooks.ts'
import type { PoolPlace } from './pool.ts'
import type { SessionStart } from './session-start.ts'
import { compareSession } from './shadowing.ts'
import { timeoutsOf } from './timeouts.ts'
import type { UdpContext } from './udp-context.ts'

/** What a client is told of its datagram: port unreachable, or prohibited. */
const TOLD: Readonly<Record<Rejection, number | undefined>> = {
  reset: ECONNREFUSED,
  forbidden: ECONNREFUSED,
  unreachable: EACCES,
  refused: ECONNREFUSED,
  nxdomain: ECONNREFUSED,
  drop: undefined,
}

/** What the policy makes of a session, and what it was told of the first datagrams. */
export interface SessionDecision {
  readonly rule: string | undefined
  readonly shadow: ShadowDifference | undefined
  readonly upstream: Endpoint
  readonly source: Source
  /** Bits of the fwmark besides Limpid's own. */
  readonly mark: number
  /** Of datagrams to the upstream; undefined: as they came. */
  readonly dscp: number | undefined
  /** In a pool, to be left when the session ends, or is none. */
  readonly place: PoolPlace | undefined
  readonly timeouts: Timeouts
  /** Of what the rule lets through in a time, to be left likewise. */
  readonly share: ByteShare | undefined
  readonly finding: Finding | undefined
  /** Where a rule asks about first bytes: it goes on looking, since a client may begin another connection within the session. */
  readonly quic: QuicHello | undefined
  /** Datagrams that were held back until now, in their order. */
  readonly before: readonly Uint8Array[]
}

/**
 * Asks the policy about a session that is to be opened, and the hook where the rules would forward it. A reason where there must be none;
 * `held` while its datagrams, which are kept, do not say yet what a rule asks, or the hook is waited for: then `later` is told, once.
 */
export function decideSession(
  start: SessionStart,
  context: UdpContext,
  later: (decision: SessionDecision | DropReason, datagrams: number) => void,
): SessionDecision | DropReason | 'held' {
  const { proxy, undecided } = context
  const { listener, upstream } = start
  const undisputed = {
    rule: undefined,
    shadow: undefined,
    upstream,
    source: listener.source,
    mark: 0,
    dscp: undefined,
    place: undefined,
    timeouts: listener.timeouts,
    share: undefined,
    finding: undefined,
    quic: undefined,
    before: [],
  }
  const policy = start.app === undefined ? proxy.policy() : undefined
  if (policy === undefined) return undisputed
  const hooks = proxy.hooks?.decides === true ? proxy.hooks : undefined
  if (hooks !== undefined && context.asked.has(hookKey(start))) {
    return context.asked.hold(hookKey(start), start.datagrams()) ? 'held' : 'hook-waiting'
  }
  const facts = factsOf(start, undefined, context)
  const byAddress = policy.decide(facts)
  if (byAddress.kind === 'decided' && (hooks === undefined || !isOnward(byAddress.decision))) {
    const shadow = compareSession(proxy.shadow(), start, facts, byAddress)
    return applied(byAddress, { ...undisputed, shadow }, start, context)
  }
  const key = `${formatEndpoint(start.client)} ${formatEndpoint(start.originalDst)}`
  const found = undecided.look(key, start.datagrams(), proxy.resources.loop.now, policy.peek.helloMs)
  if (found.kind !== 'found') return found.kind
  const { finding, quic, before } = found
  const known = { ...facts, finding }
  const decided = policy.decide(known)
  if (decided.kind === 'inspect') return 'policy' // cannot be: there is a finding
  const ready = { ...undisputed, finding, quic, before }
  if (hooks === undefined || !isOnward(decided.decision)) return finished(decided, known, ready, start, context)
  return askHook(hooks, { decided, facts: known, ready, start, context }, later)
}

interface AskedSession {
  /** By the rules. */
  readonly decided: FinalDecision
  readonly facts: FlowFacts & { readonly finding: Finding }
  readonly ready: SessionDecision
  readonly start: SessionStart
  readonly context: UdpContext
}

function askHook(
  hooks: FlowHooks,
  { decided, facts, ready, start, context }: AskedSession,
  later: Parameters<typeof decideSession>[2],
): SessionDecision | DropReason | 'held' {
  const { asked } = context
  const { listener, client, originalDst, upstream } = start
  const { decision, rule } = decided
  const flow = {
    listener: listener.name,
    transport: 'udp' as const,
    client,
    originalDst,
    upstream: isOnward(decision) ? likelyUpstream(decision, { originalDst, upstream }) : upstream,
    names: facts.learntNames,
    rule,
  }
  const key = hookKey(start)
  const answered = (answer: HookAnswer, before: readonly Uint8Array[]): SessionDecision | DropReason => {
    if (answer === 'failed') {
      tellClient(start, ECONNREFUSED, 0, 0, context)
      return 'hook-failed'
    }
    const final: FinalDecision = answer === undefined ? decided : { kind: 'decided', rule: 'onFlow', decision: answer }
    return finished(final, facts, { ...ready, before }, start, context)
  }
  let now: SessionDecision | DropReason | undefined
  let isWaiting = false
  const giveUp = hooks.ask(flow, facts.finding, (answer) => {
    if (isWaiting) {
      const before = asked.end(key)
      later(answered(answer, before), before.length)
    } else now = answered(answer, ready.before)
  })
  if (now !== undefined) return now
  isWaiting = true
  asked.begin(key, giveUp)
  return asked.hold(key, [...ready.before, ...start.datagrams()]) ? 'held' : 'hook-waiting'
}

function hookKey({ listener, client, originalDst }: SessionStart): string {
  return `${listener.name} ${formatEndpoint(client)} ${formatEndpoint(originalDst)}`
}

/** What was decided by these facts, compared with what the shadow policy says, and done. */
function finished(
  decided: FinalDecision,
  facts: FlowFacts,
  ready: SessionDecision,
  start: SessionStart,
  context: UdpContext,
): SessionDecision | DropReason {
  const shadow = compareSession(context.proxy.shadow(), start, facts, decided)
  return applied(decided, { ...ready, shadow }, start, context)
}

type FactsSource = Pick<SessionStart, 'listener' | 'client' | 'originalDst' | 'interfaceIndex'>

/** Whether a session may go on with what its client says within it: `host` of the connection that it began last. */
export function mayGoOn(session: FactsSource, finding: Finding, context: UdpContext): boolean {
  const policy = context.proxy.policy()
  if (policy === undefined) return true
  if (context.proxy.hooks?.decides === true) return false // the hook is asked about sessions: it is to be another
  const decided = policy.decide(factsOf(session, finding, context))
  return decided.kind === 'decided' && decided.decision.kind !== 'reject' && decided.decision.kind !== 'via'
}

function applied(
  { rule, decision }: FinalDecision,
  undisputed: SessionDecision,
  start: SessionStart,
  context: UdpContext,
): SessionDecision | DropReason {
  const { proxy } = context
  // its datagrams would go another way than a rule says; the client may try TCP
  if (decision.kind === 'reject' || decision.kind === 'via') {
    const errno = decision.kind === 'via' ? ECONNREFUSED : TOLD[decision.rejection]
    if (errno !== undefined) tellClient(start, errno, 0, 0, context)
    return 'policy'
  }
  if (decision.kind === 'bypass') {
    proxy.onBypass(start.originalDst.address, decision.forMs)
    return { ...undisputed, rule }
  }
  const { source = undisputed.source, mark = 0, dscp, limit } = decision
  const { now } = proxy.resources.loop
  if (limit !== undefined && !proxy.rates.admits(rule, limit, start.client.address, now)) return 'policy-limit'
  const destination = destinationOf(decision, start, proxy.pools)
  if (destination.kind === 'none') {
    tellClient(start, ECONNREFUSED, 0, 0, context)
    return 'dial-failed'
  }
  const { endpoint, place } = destination
  const timeouts = timeoutsOf(start.listener, decision.timeouts)
  const share = proxy.byteRates.enter(rule, limit, start.client.address, performance.now())
  return { ...undisputed, rule, upstream: endpoint, source, mark, dscp, place, timeouts, share }
}

function factsOf(
  { listener, client, originalDst, interfaceIndex }: FactsSource,
  finding: Finding | undefined,
  { proxy }: UdpContext,
): FlowFacts {
  const learntNames = proxy.namesOf(client.address, originalDst.address)
  const link = interfaceIndex === 0 ? undefined : proxy.links.of(interfaceIndex, client.address)
  return { listener: listener.name, protocol: 'udp', client, originalDst, link, finding, learntNames, at: new Date() }
}
