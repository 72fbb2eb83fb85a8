import { formatDuration } from '../config/duration.ts'
import type { Decision, Onward, Via } from '../config/policy-types.ts'
import { endpointText, formatEndpoint } from '../net/address.ts'

/** In the words of the config: `forward`, `forward to 10.0.4.9:8080 with source proxy`, `reject by forbidden`, `bypass for 1h`. */
export function formatDecision(decision: Decision): string {
  if (decision.kind === 'reject') return `reject by ${decision.rejection}`
  if (decision.kind === 'bypass') return `bypass for ${formatDuration(decision.forMs)}`
  const { to, source, mark, dscp } = decision
  return [
    decision.kind === 'via' ? `via ${viaText(decision.via)}` : 'forward',
    ...(to === undefined ? [] : [`to ${targetText(to)}`]),
    ...(source === undefined ? [] : [`with source ${typeof source === 'object' ? source.address : source}`]),
    ...(mark === undefined ? [] : [`with mark 0x${mark.toString(16)}`]),
    ...(dscp === undefined ? [] : [`with DSCP ${dscp}`]),
  ].join(' ')
}

/** Without its credentials. */
function viaText(via: Via): string {
  return via.kind === 'proxy-protocol' ? `PROXY protocol v${via.version}` : `${via.kind} ${formatEndpoint(via.proxy)}`
}

function targetText(to: NonNullable<Onward['to']>): string {
  if ('pool' in to) return `pool:${to.pool}`
  return endpointText(to)
}

/** The name of the rule that decided, for people. */
export function formatRule(rule: string | undefined): string {
  return rule ?? 'otherwise'
}
