import type { Decision } from '../config/policy-types.ts'
import type { Endpoint } from '../net/address.ts'
import type { Finding, FlowFacts } from '../policy/facts.ts'
import type { Policy } from '../policy/policy.ts'
import type { FinalDecision } from './deciding.ts'
import { isOnward, likelyUpstream } from './destination.ts'
import type { FlowHooks } from './flow-hooks.ts'
import { type HostCheck, type HostOutcome, isRefusedHost, namesHost } from './host-check.ts'

/** Who is asked about a flow or session beside its policy. */
export interface Consulted {
  readonly policy: Pick<Policy, 'hostCheck'>
  readonly hooks: FlowHooks | undefined
  readonly hostCheck: HostCheck
  /** As the listener says. */
  readonly upstream: Endpoint
  /** Whether it matters, where this is decided, if the host that it names has the address that its client goes to. */
  checksHost(decision: Decision): boolean
}

/** Why it must not go on. */
export type ConsultRefusal = 'hook-failed' | 'host-mismatch'

/** Whether they have to know what the first bytes say, though the rules do not. */
export function wantsFinding(decision: Decision, consulted: Consulted): boolean {
  return (consulted.hooks?.decides === true && isOnward(decision)) || consulted.checksHost(decision)
}

/**
 * Asks the hook, where the rules would let a flow or session go on, and then whether the host that it names has its address. `done` is told
 * once, within this call or later; not any more after the returned function was called.
 */
export function consult(
  decided: FinalDecision,
  facts: FlowFacts & { readonly finding: Finding },
  consulted: Consulted,
  done: (decided: FinalDecision | ConsultRefusal, hostChecked: HostOutcome | undefined) => void,
): () => void {
  const { policy, hooks, hostCheck, upstream } = consulted
  const { rule, decision } = decided
  const { finding, listener, protocol, client, originalDst, learntNames } = facts
  let stopHook: (() => void) | undefined
  let stopCheck: (() => void) | undefined
  const check = (decided: FinalDecision): void => {
    if (!namesHost(finding) || !consulted.checksHost(decided.decision)) {
      done(decided, undefined)
      return
    }
    stopCheck = hostCheck.ask(facts, (outcome) =>
      done(isRefusedHost(policy, outcome) ? 'host-mismatch' : decided, outcome),
    )
  }
  if (hooks?.decides === true && isOnward(decision)) {
    const flow = {
      listener,
      transport: protocol,
      client,
      originalDst,
      upstream: likelyUpstream(decision, { originalDst, upstream }),
      names: learntNames,
      rule,
    }
    stopHook = hooks.ask(flow, finding, (answer) => {
      if (answer === 'failed') done('hook-failed', undefined)
      else check(answer === undefined ? decided : { kind: 'decided', rule: 'onFlow', decision: answer })
    })
  } else check(decided)
  return () => {
    stopHook?.()
    stopCheck?.()
  }
}
