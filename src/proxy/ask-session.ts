import type { Decision } from '../config/policy-types.ts'
import { formatEndpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { Policy } from '../policy/policy.ts'
import { ECONNREFUSED } from '../sys/errno.ts'
import { tellClient } from './client-errors.ts'
import { type Consulted, consult } from './consult.ts'
import type { FinalDecision } from './deciding.ts'
import type { DropReason } from './drops.ts'
import { type HostOutcome, leadsToOriginalDst } from './host-check.ts'
import type { SessionStart } from './session-start.ts'
import type { UdpContext } from './udp-context.ts'

/** A session that the rules have decided by its first datagrams. */
export interface RuledSession {
  readonly decided: FinalDecision
  readonly facts: FlowFacts & { readonly finding: Finding }
  readonly consulted: Consulted
  /** Datagrams that were held back until now. */
  readonly before: readonly Uint8Array[]
  readonly start: SessionStart
  readonly context: UdpContext
}

/** What was decided when all have answered; or why it must not be, of which the client was told. */
export type Answered = { readonly decided: FinalDecision; readonly hostChecked: HostOutcome | undefined } | DropReason

/**
 * Asks all who are asked beside the policy. `held` while one of them is waited for: the datagrams are kept, and `onAnswered` is told once, with
 * all that came until then.
 */
export function askSession(
  { decided, facts, consulted, before, start, context }: RuledSession,
  onAnswered: (answered: Answered, before: readonly Uint8Array[]) => void,
): Answered | 'held' {
  const { asked } = context
  const key = askedKey(start)
  let atOnce: Answered | undefined
  let isHeld = false
  const giveUp = consult(decided, facts, consulted, (decided, hostChecked) => {
    const isRefused = typeof decided === 'string'
    if (isRefused) tellClient(start, ECONNREFUSED, context)
    const answered = isRefused ? decided : { decided, hostChecked }
    if (isHeld) onAnswered(answered, asked.end(key))
    else atOnce = answered
  })
  if (atOnce !== undefined) return atOnce
  isHeld = true
  asked.begin(key, giveUp)
  asked.hold(key, [...before, ...start.datagrams()])
  return 'held'
}

/** By which the datagrams of a session are kept that somebody is asked about. */
export function askedKey({ listener, client, originalDst }: SessionStart): string {
  return `${listener.name} ${formatEndpoint(client)} ${formatEndpoint(originalDst)}`
}

/** Whether it matters if the host that a session names has the address that its client sends to. */
export function checksHost(policy: Policy, decision: Decision, { listener }: Pick<SessionStart, 'listener'>): boolean {
  return policy.hostCheck !== 'off' && decision.kind !== 'via' && leadsToOriginalDst(decision, listener)
}
