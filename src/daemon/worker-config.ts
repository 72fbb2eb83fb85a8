import type { ProgramConfig } from '../apps/define-config.ts'
import type { Decision, PolicyConfig, RateLimit } from '../config/policy-types.ts'
import { LEAST_BURST_BYTES } from '../config/rate-values.ts'
import type { Limits } from '../config/types.ts'

/** What one of `workers` processes serves: the same, within its share of the limits. Functions cannot be sent: it loads the program itself. */
export function workerConfig({ hooks, apps, ...config }: ProgramConfig, workers: number): ProgramConfig {
  return {
    ...config,
    workers: 1,
    limits: shareOf(config.limits, workers),
    policy: workerPolicy(config.policy, workers),
    shadow: config.shadow && workerPolicy(config.shadow, workers),
  }
}

/** The same rules, with a share of what they let through in a time. */
export function workerPolicy(policy: PolicyConfig, workers: number): PolicyConfig {
  const rules = policy.rules.map((rule) => ({ ...rule, decision: decisionShare(rule.decision, workers) }))
  return { ...policy, rules, otherwise: decisionShare(policy.otherwise, workers) }
}

function decisionShare(decision: Decision, workers: number): Decision {
  if (!('limit' in decision) || decision.limit === undefined) return decision
  return { ...decision, limit: limitShare(decision.limit, workers) }
}

/** Of bytes exactly its share: however a client's flows are spread, all workers together let no more through. */
function limitShare({ per, newFlows, bytes }: RateLimit, workers: number): RateLimit {
  return {
    per,
    newFlows: newFlows && {
      intervalMs: newFlows.intervalMs * workers,
      burst: clientShare(newFlows.burst, workers),
    },
    bytes: bytes && {
      perSecond: bytes.perSecond / workers,
      burst: Math.max(LEAST_BURST_BYTES, bytes.burst / workers),
    },
  }
}

function shareOf(limits: Limits, workers: number): Limits {
  const share = (limit: number): number => Math.ceil(limit / workers) // 0 stays 0: what RLIMIT_NOFILE allows each
  return {
    ...limits,
    flows: share(limits.flows),
    sessions: share(limits.sessions),
    flowsPerClient: clientShare(limits.flowsPerClient, workers),
    sessionsPerClient: clientShare(limits.sessionsPerClient, workers),
  }
}

/**
 * The kernel spreads a client's flows by a hash, so that a worker may have more of them than its share. Four standard
 * deviations of a Poisson distribution above it, no client meets its limit early; all workers together let it have at
 * most `limit + 4 √(limit × workers)`.
 */
function clientShare(limit: number, workers: number): number {
  const share = limit / workers
  return Math.min(limit, Math.ceil(share + 4 * Math.sqrt(share)))
}
