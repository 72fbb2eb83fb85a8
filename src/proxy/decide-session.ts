import type { Decision, Rejection } from '../config/policy-types.ts'
import type { Source, Timeouts } from '../config/types.ts'
import type { QuicHello } from '../inspect/quic-initial.ts'
import type { Endpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { ShadowDifference } from '../policy/shadow.ts'
import { EACCES, ECONNREFUSED } from '../sys/errno.ts'
import { type Answered, askedKey, askSession, checksHost } from './ask-session.ts'
import type { ByteShare } from './byte-rates.ts'
import { tellClient } from './client-errors.ts'
import { type Consulted, wantsFinding } from './consult.ts'
import type { FinalDecision } from './deciding.ts'
import { destinationOf } from './destination.ts'
import type { DropReason } from './drops.ts'
import type { HostOutcome } from './host-check.ts'
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
  /** By which it goes on; undefined: as its listener says. */
  readonly decision: Decision | undefined
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
  readonly hostChecked: HostOutcome | undefined
  /** Where a rule asks about first bytes: it goes on looking, since a client may begin another connection within the session. */
  readonly quic: QuicHello | undefined
  /** Datagrams that were held back until now, in their order. */
  readonly before: readonly Uint8Array[]
}

/**
 * Asks the policy about a session that is to be opened, then the hook and whether its host has that address, where that matters. A reason
 * where there must be none; `held` while its datagrams, which are kept, do not say yet what a rule asks, or an answer is waited for: of that
 * `onDecided` is told, once.
 */
export function decideSession(
  start: SessionStart,
  context: UdpContext,
  onDecided: (decided: SessionDecision | DropReason, datagrams: number) => void,
): SessionDecision | DropReason | 'held' {
  const { proxy, hellos, asked } = context
  const { listener, upstream } = start
  const undisputed = {
    rule: undefined,
    decision: undefined,
    shadow: undefined,
    upstream,
    source: listener.source,
    mark: 0,
    dscp: undefined,
    place: undefined,
    timeouts: listener.timeouts,
    share: undefined,
    finding: undefined,
    hostChecked: undefined,
    quic: undefined,
    before: [],
  }
  if (start.app === undefined && !asked.isEmpty) {
    const asking = askedKey(start) // also where the policy was taken away meanwhile: else it would be opened twice
    if (asked.has(asking)) {
      asked.hold(asking, start.datagrams())
      return 'held'
    }
  }
  const policy = start.app === undefined ? proxy.policy() : undefined
  if (policy === undefined) return undisputed
  const facts = factsOf(start, undefined, context)
  const byAddress = policy.decide(facts)
  const consulted: Consulted = {
    policy,
    hooks: proxy.hooks,
    hostCheck: proxy.hostCheck,
    upstream,
    checksHost: (decision) => checksHost(policy, decision, start),
  }
  if (byAddress.kind === 'decided' && !wantsFinding(byAddress.decision, consulted)) {
    return finished({ decided: byAddress, hostChecked: undefined }, facts, undisputed, start, context)
  }
  const found = hellos.look(askedKey(start), start.datagrams(), proxy.resources.loop.now, policy.peek.helloMs)
  if (found.kind !== 'found') return found.kind
  const { finding, quic, before } = found
  const known = { ...facts, finding }
  const decided = policy.decide(known)
  if (decided.kind === 'inspect') return 'policy' // cannot be: there is a finding
  const finish = (answered: Answered, before: readonly Uint8Array[]): SessionDecision | DropReason =>
    finished(answered, known, { ...undisputed, finding, quic, before }, start, context)
  const answered = askSession({ decided, facts: known, consulted, before, start, context }, (answered, all) =>
    onDecided(finish(answered, all), all.length),
  )
  if (answered === 'held') return 'held'
  const result = finish(answered, before)
  if (typeof result === 'string') context.countDrop(result, before.length)
  return result
}

/** What was decided by these facts, compared with what the shadow policy says, and done. */
function finished(
  answered: Answered,
  facts: FlowFacts,
  undisputed: SessionDecision,
  start: SessionStart,
  context: UdpContext,
): SessionDecision | DropReason {
  if (typeof answered === 'string') return answered
  const { decided, hostChecked } = answered
  const shadow = compareSession(context.proxy.shadow(), start, facts, decided)
  return applied(decided, { ...undisputed, shadow, hostChecked }, start, context)
}

/** Whose facts are asked for. */
export type FactsSource = Pick<SessionStart, 'listener' | 'client' | 'originalDst' | 'interfaceIndex'>

function applied(
  { rule, decision }: FinalDecision,
  undisputed: SessionDecision,
  start: SessionStart,
  context: UdpContext,
): SessionDecision | DropReason {
  const { proxy } = context
  // its datagrams would go another way than a rule says; the client may try TCP
  if (decision.kind === 'reject' || decision.kind === 'via' || decision.kind === 'handle') {
    const errno = decision.kind === 'reject' ? TOLD[decision.rejection] : ECONNREFUSED
    if (errno !== undefined) tellClient(start, errno, context)
    return 'policy'
  }
  if (decision.kind === 'bypass') {
    proxy.onBypass(start.originalDst.address, decision.forMs)
    return { ...undisputed, rule, decision }
  }
  const { source = undisputed.source, mark = 0, dscp, limit } = decision
  const { now } = proxy.resources.loop
  if (limit !== undefined && !proxy.rates.admits(rule, limit, start.client.address, now)) return 'policy-limit'
  const destination = destinationOf(decision, start, proxy.pools)
  if (destination.kind === 'none') {
    tellClient(start, ECONNREFUSED, context)
    return 'dial-failed'
  }
  const { endpoint, place } = destination
  const timeouts = timeoutsOf(start.listener, decision.timeouts)
  const share = proxy.byteRates.enter(rule, limit, start.client.address, performance.now())
  return { ...undisputed, rule, decision, upstream: endpoint, source, mark, dscp, place, timeouts, share }
}

/** `finding`: undefined while nobody has looked at its datagrams. */
export function factsOf(
  { listener, client, originalDst, interfaceIndex }: FactsSource,
  finding: Finding | undefined,
  { proxy }: UdpContext,
): FlowFacts {
  const learntNames = proxy.namesOf(client.address, originalDst.address)
  const link = interfaceIndex === 0 ? undefined : proxy.links.of(interfaceIndex, client.address)
  return { listener: listener.name, protocol: 'udp', client, originalDst, link, finding, learntNames, at: new Date() }
}
