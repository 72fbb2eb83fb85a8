import { formatDuration } from '../config/duration.ts'
import type { Decision, Onward, RateLimit, Via } from '../config/policy-types.ts'
import { formatBytes } from '../config/rate-values.ts'
import { timeoutsByName } from '../config/timeouts.ts'
import type { Timeouts } from '../config/types.ts'
import { endpointText, formatEndpoint } from '../net/address.ts'

/** In the words of the config: `forward`, `forward to 10.0.4.9:8080 with source proxy`, `handle by http`, `reject by forbidden`, `bypass for 1h`. */
export function formatDecision(decision: Decision): string {
  if (decision.kind === 'reject') return `reject by ${decision.rejection}`
  if (decision.kind === 'bypass') return `bypass for ${formatDuration(decision.forMs)}`
  const { to, source, mark, dscp, limit, timeouts } = decision
  return [
    decision.kind === 'via'
      ? `via ${viaText(decision.via)}`
      : decision.kind === 'handle'
        ? `handle by ${decision.app}`
        : 'forward',
    ...(to === undefined ? [] : [`to ${targetText(to)}`]),
    ...(source === undefined ? [] : [`with source ${typeof source === 'object' ? source.address : source}`]),
    ...(mark === undefined ? [] : [`with mark 0x${mark.toString(16)}`]),
    ...(dscp === undefined ? [] : [`with DSCP ${dscp}`]),
    ...(limit === undefined ? [] : [`with limit ${limitText(limit)}`]),
    ...(timeouts === undefined ? [] : [`with timeouts ${timeoutsText(timeouts)}`]),
  ].join(' ')
}

/** `socks5 10.0.4.9:1080`, without its credentials. */
export function viaText(via: Via): string {
  return via.kind === 'proxy-protocol' ? `PROXY protocol v${via.version}` : `${via.kind} ${formatEndpoint(via.proxy)}`
}

/** `10 flows/s and 2M bytes/s per client`. */
function limitText({ newFlows, bytes, per }: RateLimit): string {
  const parts = [
    ...(newFlows === undefined ? [] : [flowRateText(newFlows.intervalMs)]),
    ...(bytes === undefined ? [] : [`${formatBytes(bytes.perSecond)} bytes/s each way`]),
  ]
  return `${parts.join(' and ')} per ${per}`
}

function flowRateText(intervalMs: number): string {
  const [unit, ms] = FLOW_UNITS.find(([, ms]) => isWhole(ms / intervalMs)) ?? FLOW_UNITS.at(-1)!
  return `${Math.round(ms / intervalMs)} flows/${unit}`
}

function isWhole(count: number): boolean {
  return count > 0.5 && Math.abs(count - Math.round(count)) < 1e-6
}

const FLOW_UNITS = [
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
] as const

/** `idle 5s, session off`. */
function timeoutsText(timeouts: Partial<Timeouts>): string {
  return timeoutsByName(timeouts)
    .map(([name, ms]) => `${name} ${ms === 0 ? 'off' : formatDuration(ms)}`)
    .join(', ')
}

function targetText(to: NonNullable<Onward['to']>): string {
  if ('pool' in to) return `pool:${to.pool}`
  return endpointText(to)
}

/** The name of the rule that decided, for people. */
export function formatRule(rule: string | undefined): string {
  return rule ?? 'otherwise'
}
