import { type Endpoint, familyOf, isNeverForeign } from '../net/address.ts'
import { NAME } from './name.ts'
import { buildLimit, limitSchema } from './policy-limit.ts'
import type { Decision, Onward, PoolConfig, Rejection } from './policy-types.ts'
import { DSCP, MARK, POLICY_TARGET, POLICY_THEN, type PolicyThen, REJECTION } from './policy-values.ts'
import { buildVia, viaSchema } from './policy-via.ts'
import { missing, type Report } from './problem.ts'
import type { value as parsed } from './schema.ts'
import { buildTimeouts, timeoutsSchema } from './timeouts.ts'
import type { Source } from './types.ts'
import { DURATION, SOURCE } from './values.ts'
import type * as z from './zod.ts'

const DEFAULT_BYPASS_MS = 3_600_000

/** The keys of a decision: of a rule, of `otherwise`, and of what a hook returns. */
export function decisionKeys(pieces: { readonly value: typeof parsed }) {
  const { value } = pieces
  return {
    // biome-ignore lint/suspicious/noThenProperty: the operator's word; nobody awaits a rule
    then: value<PolicyThen, PolicyThen>(POLICY_THEN).describe(`${POLICY_THEN.expected}.`),
    to: value(POLICY_TARGET)
      .optional()
      .describe(
        'With `then: forward`, `via` or `handle`: the destination in place of the original one: a server, or pool:NAME.',
      ),
    via: viaSchema(pieces).optional(),
    app: NAME.optional().describe('With `then: handle`: the app that has the flow: http, or one of a program.'),
    source: value<Source, 'proxy' | 'client' | 'client-port' | (string & {})>(SOURCE)
      .optional()
      .describe('With `then: forward`, `via` or `handle`: whose address the server sees, if not as the listener says.'),
    mark: value(MARK)
      .optional()
      .describe(
        'With `then: forward`, `via` or `handle`: bits of the fwmark of packets to the upstream, outside rules.markMask.',
      ),
    dscp: value(DSCP)
      .optional()
      .describe(
        'With `then: forward`, `via` or `handle`: DSCP of packets to the upstream: 0 to 63, or ef, af41, cs1 and so on.',
      ),
    limit: limitSchema(pieces)
      .optional()
      .describe(
        'With `then: forward`, `via` or `handle`: more flows are reset, more bytes have to wait, datagrams are dropped.',
      ),
    timeouts: timeoutsSchema(pieces)
      .optional()
      .describe('With `then: forward`, `via` or `handle`: those of the listener hold where nothing else is said.'),
    by: value<Rejection, Rejection>(REJECTION)
      .optional()
      .describe(
        'With `then: reject`: reset (the default), drop, forbidden (HTTP 403), unreachable (ICMP), or by DNS refused or nxdomain.',
      ),
    for: value(DURATION).optional().describe('With `then: bypass`: how long the kernel forwards; 1h when left out.'),
  }
}

type DecisionInput = z.output<z.ZodObject<ReturnType<typeof decisionKeys>>>
type Path = readonly (string | number)[]

interface DecisionContext {
  readonly markMask: number
  /** Names of the apps that there are; undefined: nobody knows, and any may be named. */
  readonly apps: readonly string[] | undefined
  /** Undefined: those of the moment when the decision is used. */
  readonly pools: Readonly<Record<string, PoolConfig>> | undefined
  readonly report: Report
}

const ONWARD: readonly Decision['kind'][] = ['forward', 'via', 'handle']
const BELONGS: Readonly<Partial<Record<keyof DecisionInput, readonly Decision['kind'][]>>> = {
  to: ONWARD,
  source: ONWARD,
  mark: ONWARD,
  dscp: ONWARD,
  limit: ONWARD,
  timeouts: ONWARD,
  via: ['via'],
  app: ['handle'],
  by: ['reject'],
  for: ['bypass'],
}

/** Problems go to `report`, with paths that begin with `path`. */
export function buildDecision(input: DecisionInput, path: Path, context: DecisionContext): Decision {
  const { then } = input
  const { report } = context
  for (const [key, belongs] of Object.entries(BELONGS)) {
    if (input[key as keyof DecisionInput] === undefined || belongs.includes(then)) continue
    report({ path: [...path, key], at: 'key', message: `"${key}" has no meaning with then ${then}` })
  }
  if (then === 'reject') return { kind: 'reject', rejection: input.by ?? 'reset' }
  if (then === 'bypass') return { kind: 'bypass', forMs: input.for ?? DEFAULT_BYPASS_MS }
  const onward = buildOnward(input, path, context)
  if (then === 'forward') return { kind: 'forward', ...onward }
  if (then === 'handle') {
    if (onward.limit?.bytes !== undefined) {
      const message = '"bytes" has no meaning with then handle: an app reads as fast as it likes'
      report({ path: [...path, 'limit', 'bytes'], at: 'key', message })
    }
    return { kind: 'handle', app: appOf(input, path, context), ...onward }
  }
  const via = buildVia(input.via, path, report)
  if (via.kind !== 'proxy-protocol') {
    checkDialled(input, [via.proxy], [...path, 'via', via.kind], report)
    if (input.to !== undefined && 'pool' in input.to) {
      report({
        path: [...path, 'to'],
        message: `expected an address: the servers of a pool are not dialled via ${via.kind}`,
      })
    }
  }
  return { kind: 'via', via, ...onward }
}

function appOf({ app }: DecisionInput, path: Path, { apps, report }: DecisionContext): string {
  if (app === undefined) {
    const problem = missing('app', 'then handle needs to know which app has the flow')
    report({ ...problem, path: [...path, ...problem.path] })
  } else if (apps !== undefined && !apps.includes(app)) {
    report({ path: [...path, 'app'], message: `expected an app: ${apps.join(', ')}; found "${app}"` })
  }
  return app ?? ''
}

function buildOnward(input: DecisionInput, path: Path, context: DecisionContext): Onward {
  const { to, source, mark, dscp, limit, timeouts } = input
  const { markMask, report } = context
  const isAsked = input.via?.socks5 !== undefined || input.via?.connect !== undefined // then we do not dial there
  if (to !== undefined && !isAsked) checkDialled(input, serversOf(to, path, context), [...path, 'to'], report)
  if (mark !== undefined && (mark & markMask) !== 0) {
    const message = `mark ${hex(mark)} has bits of markMask ${hex(markMask)}, which are Limpid's own`
    report({ path: [...path, 'mark'], message })
  }
  return {
    to,
    source,
    ...(mark === undefined ? {} : { mark }),
    ...(dscp === undefined ? {} : { dscp }),
    ...(limit === undefined ? {} : { limit: buildLimit(limit, [...path, 'limit'], report) }),
    ...(timeouts === undefined ? {} : { timeouts: buildTimeouts(timeouts) }),
  }
}

function serversOf(to: NonNullable<Onward['to']>, path: Path, { pools, report }: DecisionContext): readonly Endpoint[] {
  if (!('pool' in to)) return [to]
  if (pools === undefined) return []
  const pool = pools[to.pool]
  const names = Object.keys(pools)
  if (pool === undefined) {
    const expected = names.length === 0 ? 'no pool: there are none' : `pool:${names.join(', pool:')}`
    report({ path: [...path, 'to'], message: `expected ${expected}, found "pool:${to.pool}"` })
  }
  return pool?.servers ?? []
}

/** Whether the source of a rule can dial there. */
function checkDialled({ source }: DecisionInput, servers: readonly Endpoint[], path: Path, report: Report): void {
  if (source === undefined || source === 'proxy') return
  for (const { address } of servers) {
    if (isNeverForeign(address)) report({ path, message: `${address} cannot be dialled with a foreign address` })
    if (typeof source === 'object' && familyOf(source.address) !== familyOf(address)) {
      report({ path, message: `expected an IPv${familyOf(source.address)} address: so is "source"` })
    }
  }
}

function hex(mark: number): string {
  return `0x${mark.toString(16)}`
}
