import type { Decision } from '../config/policy-types.ts'
import { formatEndpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { Policy } from '../policy/policy.ts'
import { ECONNREFUSED } from '../sys/errno.ts'
import { tellClient } from './client-errors.ts'
import type { FinalDecision } from './deciding.ts'
import { isOnward, likelyUpstream } from './destination.ts'
import type { DropReason } from './drops.ts'
import { type HostOutcome, isRefusedHost, leadsToOriginalDst, namesHost } from './host-check.ts'
import type { SessionStart } from './session-start.ts'
import type { UdpContext } from './udp-context.ts'

/** A session that the rules have decided by its first datagrams. */
export interface RuledSession {
  readonly decided: FinalDecision
  readonly facts: FlowFacts & { readonly finding: Finding }
  readonly policy: Policy
  /** Datagrams that were held back until now. */
  readonly before: readonly Uint8Array[]
  readonly start: SessionStart
  readonly context: UdpContext
}

/** What was decided when all have answered; or why it must not be, of which the client was told. */
export type Answered = { readonly decided: FinalDecision; readonly hostChecked: HostOutcome | undefined } | DropReason

/**
 * Asks the hook, where the rules would forward the session, and then whether the host that it names has its address. `held` while one of them
 * is waited for: the datagrams are kept, and `onAnswered` is told once, with all that came until then.
 */
export function askSession(
  session: RuledSession,
  onAnswered: (answered: Answered, before: readonly Uint8Array[]) => void,
): Answered | 'held' {
  const { before, start, context } = session
  const { asked } = context
  const key = askedKey(start)
  const stops: (() => void)[] = []
  let atOnce: Answered | undefined
  let isHeld = false
  const answer = (answered: Answered): void => {
    if (isHeld) onAnswered(answered, asked.end(key))
    else atOnce = answered
  }
  askHook(session, stops, (decided) => {
    if (typeof decided === 'string') answer(decided)
    else askHost(session, decided, stops, answer)
  })
  if (atOnce !== undefined) return atOnce
  isHeld = true
  asked.begin(key, () => {
    for (const stop of stops) stop()
  })
  return asked.hold(key, [...before, ...start.datagrams()]) ? 'held' : 'decision-waiting'
}

/** By which the datagrams of a session are kept that somebody is asked about. */
export function askedKey({ listener, client, originalDst }: SessionStart): string {
  return `${listener.name} ${formatEndpoint(client)} ${formatEndpoint(originalDst)}`
}

/** Whether it matters if the host that a session names has the address that its client sends to. */
export function checksHost(policy: Policy, decision: Decision, { listener }: Pick<SessionStart, 'listener'>): boolean {
  return policy.hostCheck !== 'off' && decision.kind !== 'via' && leadsToOriginalDst(decision, listener)
}

function askHook(
  { decided, facts, start, context }: RuledSession,
  stops: (() => void)[],
  done: (decided: FinalDecision | DropReason) => void,
): void {
  const { hooks } = context.proxy
  const { decision, rule } = decided
  if (hooks?.decides !== true || !isOnward(decision)) {
    done(decided)
    return
  }
  const { listener, client, originalDst, upstream } = start
  const flow = {
    listener: listener.name,
    transport: 'udp' as const,
    client,
    originalDst,
    upstream: likelyUpstream(decision, { originalDst, upstream }),
    names: facts.learntNames,
    rule,
  }
  const stop = hooks.ask(flow, facts.finding, (answer) => {
    if (answer === 'failed') {
      tellClient(start, ECONNREFUSED, 0, 0, context)
      done('hook-failed')
    } else done(answer === undefined ? decided : { kind: 'decided', rule: 'onFlow', decision: answer })
  })
  stops.push(stop)
}

function askHost(
  { facts, policy, start, context }: RuledSession,
  decided: FinalDecision,
  stops: (() => void)[],
  done: (answered: Answered) => void,
): void {
  if (!namesHost(facts.finding) || !checksHost(policy, decided.decision, start)) {
    done({ decided, hostChecked: undefined })
    return
  }
  const stop = context.proxy.hostCheck.ask(facts, (hostChecked) => {
    if (isRefusedHost(policy, hostChecked)) {
      tellClient(start, ECONNREFUSED, 0, 0, context)
      done('host-mismatch')
    } else done({ decided, hostChecked })
  })
  stops.push(stop)
}
