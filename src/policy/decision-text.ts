import { formatDuration } from '../config/duration.ts'
import type { Decision } from '../config/policy-types.ts'
import { formatEndpoint } from '../net/address.ts'

/** In the words of the config: `forward`, `forward to 10.0.4.9:8080 with source proxy`, `reject by forbidden`, `bypass for 1h`. */
export function formatDecision(decision: Decision): string {
  if (decision.kind === 'reject') return `reject by ${decision.rejection}`
  if (decision.kind === 'bypass') return `bypass for ${formatDuration(decision.forMs)}`
  const { to, source } = decision
  const target = to === undefined ? '' : ` to ${to.port === 0 ? to.address : formatEndpoint(to)}`
  return `forward${target}${source === undefined ? '' : ` with source ${typeof source === 'object' ? source.address : source}`}`
}

/** The name of the rule that decided, for people. */
export function formatRule(rule: string | undefined): string {
  return rule ?? 'otherwise'
}
