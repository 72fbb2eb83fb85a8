import { type Endpoint, type Family, familyOf, parseAddress } from '../net/address.ts'
import { isAllPorts, type PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import { DEFAULT_LISTEN_PORT, DEFAULT_TIMEOUTS } from './defaults.ts'
import { missing, type Report } from './problem.ts'
import type { Intercept, ListenerConfig, Match, OnDown, Source } from './types.ts'
import type { ListenValue, Target } from './values.ts'

export interface MatchInput {
  readonly interfaces?: readonly string[] | undefined
  readonly sources?: readonly Prefix[] | undefined
  readonly destinations?: readonly Prefix[] | undefined
  readonly ports?: readonly (readonly PortRange[])[] | undefined
}

/** A listener as it was asked for: what is left out gets its default from buildListener(). */
export interface ListenerInput extends MatchInput {
  readonly name?: string | undefined
  readonly intercept?: Intercept | undefined
  readonly listen?: readonly ListenValue[] | undefined
  readonly family?: readonly Family[] | undefined
  readonly exclude?: MatchInput | undefined
  readonly interceptLocal?: boolean | undefined
  readonly source?: Source | undefined
  readonly to?: Target | undefined
  readonly onDown?: OnDown | undefined
  readonly fastOpen?: boolean | undefined
  /** Milliseconds; 0 switches a timeout off. */
  readonly timeouts?: { connect?: number; idle?: number; halfClose?: number; deadPeer?: number } | undefined
}

export interface BuildContext {
  /** Place in the list, from 0: chooses the default name and port. */
  readonly index: number
  /** The families that this host has, for a listener that does not say which. */
  readonly hostFamilies: readonly Family[]
  readonly rulesInstalled: boolean
  /** Path of a problem is relative to the listener. */
  readonly report: Report
}

const PACKETS_ONLY = ['interfaces', 'destinations', 'ports'] as const // who may dial (`sources`) is checked by the proxy too

/** Completes a listener and checks what its values say together; problems go to `report`. */
export function buildListener(input: ListenerInput, context: BuildContext): ListenerConfig {
  const { index, report } = context
  const intercept = input.intercept ?? 'tproxy'
  const source = input.source ?? 'proxy'
  const families = chooseFamilies(input, source, context)
  if (intercept === 'none') checkForwarder(input, report)
  if (input.interceptLocal === true && input.to === undefined) {
    report({ path: ['interceptLocal'], message: 'interceptLocal needs "to": without it Limpid would dial itself' })
  }
  if (input.onDown === 'closed' && !context.rulesInstalled) {
    report({ path: ['onDown'], message: 'onDown closed needs the kernel rules, which are switched off' })
  }
  const { connect, idle, halfClose, deadPeer } = input.timeouts ?? {}
  return {
    name: input.name ?? `listener-${index + 1}`,
    intercept,
    listen: chooseEndpoints(input, intercept, families, context),
    families,
    match: withoutAllPorts(buildMatch(input)),
    exclude: buildMatch(input.exclude ?? {}),
    interceptLocal: input.interceptLocal ?? false,
    source,
    to: input.to,
    onDown: input.onDown ?? 'open',
    fastOpen: input.fastOpen ?? false,
    timeouts: {
      connectMs: connect ?? DEFAULT_TIMEOUTS.connectMs,
      idleMs: idle ?? DEFAULT_TIMEOUTS.idleMs,
      halfCloseMs: halfClose ?? DEFAULT_TIMEOUTS.halfCloseMs,
      deadPeerMs: deadPeer ?? DEFAULT_TIMEOUTS.deadPeerMs,
    },
  }
}

function checkForwarder(input: ListenerInput, report: Report): void {
  if (input.to === undefined) {
    report(missing('to', 'with intercept none there is no original destination to dial'))
  }
  if (input.listen === undefined) {
    report(missing('listen', 'with intercept none clients dial the listener itself'))
  }
  const meaningless = (path: readonly string[]): void =>
    report({ path, at: 'key', message: `"${path.at(-1)}" has no meaning with intercept none, which takes no packets` })
  for (const key of [...PACKETS_ONLY, 'interceptLocal', 'onDown'] as const) {
    if (input[key] !== undefined) meaningless([key])
  }
  for (const key of PACKETS_ONLY) {
    if (input.exclude?.[key] !== undefined) meaningless(['exclude', key])
  }
}

/**
 * What was asked for, or what the addresses say: those of `listen`; a source address can only be used towards its own
 * family, as can a client's towards a given `to`.
 */
function chooseFamilies(input: ListenerInput, source: Source, context: BuildContext): readonly Family[] {
  const { report } = context
  const dialled = input.to === undefined ? undefined : literalFamily(input.to.host)
  const given = typeof source === 'object' ? familyOf(source.address) : undefined
  const only = given ?? (source === 'proxy' ? undefined : dialled)
  const whyOnly = given === undefined ? `source and "to" leave IPv${only} only` : `the source is an IPv${given} address`
  if (given !== undefined && dialled !== undefined && given !== dialled) {
    report({ path: ['source'], message: `an IPv${given} source cannot dial "to", which is IPv${dialled}` })
  }
  const onFixedTarget = typeof source === 'object' && input.to !== undefined
  const bound = (input.listen ?? []).flatMap((value) => ('address' in value ? [familyOf(value.address)] : []))
  const listened = input.listen?.some((value) => !('address' in value)) ? [] : [...new Set(bound)].toSorted()
  if (input.family !== undefined) {
    const surplus = bound.find((family) => !input.family!.includes(family))
    if (surplus !== undefined)
      report({ path: ['listen'], message: `an IPv${surplus} address is outside the family asked for` })
    const missing = listened.length === 0 ? undefined : input.family.find((family) => !listened.includes(family))
    if (missing !== undefined && surplus === undefined)
      report({ path: ['listen'], message: `expected an IPv${missing} address too, for the family asked for` })
    const unserved = only === undefined || onFixedTarget ? undefined : input.family.find((family) => family !== only)
    if (unserved !== undefined) {
      report({
        path: ['family'],
        message: `IPv${unserved} clients cannot be served: ${whyOnly}`,
      })
    }
    return input.family
  }
  const families = listened.length > 0 ? listened : context.hostFamilies
  if (only === undefined || onFixedTarget) return families
  if (listened.length > 0 && !listened.every((family) => family === only)) {
    report({
      path: ['listen'],
      message: `clients of the other family cannot be served: ${whyOnly}`,
    })
  }
  return [only]
}

/** The family of a host that is an address; undefined for a name. */
export function literalFamily(host: string): Family | undefined {
  const address = parseAddress(host)
  return address === undefined ? undefined : familyOf(address)
}

/** Loopback for intercepting listeners, so that nobody outside can dial them; every address for forwarders. */
function chooseEndpoints(
  input: ListenerInput,
  intercept: Intercept,
  families: readonly Family[],
  context: BuildContext,
): readonly Endpoint[] {
  const addresses = intercept === 'tproxy' ? { 4: '127.0.0.1', 6: '::1' } : { 4: '0.0.0.0', 6: '::' }
  const asked = input.listen ?? [{ port: DEFAULT_LISTEN_PORT + context.index }]
  const endpoints = asked.flatMap((value) =>
    'address' in value ? [value] : families.map((family) => ({ address: addresses[family], port: value.port })),
  )
  if (intercept === 'tproxy') {
    for (const family of families) {
      if (endpoints.filter(({ address }) => familyOf(address) === family).length > 1) {
        context.report({
          path: ['listen'],
          message: `expected one IPv${family} endpoint for an intercepting listener, found more`,
        })
      }
    }
  }
  return endpoints
}

function buildMatch(input: MatchInput): Match {
  return {
    interfaces: [...new Set(input.interfaces ?? [])],
    sources: input.sources ?? [],
    destinations: input.destinations ?? [],
    ports: input.ports?.flat() ?? [],
  }
}

/** No condition is cheaper than one that is always true. */
function withoutAllPorts(match: Match): Match {
  return isAllPorts(match.ports) ? { ...match, ports: [] } : match
}

/** The same object, with all that hangs on it unchangeable. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const part of Object.values(value)) deepFreeze(part)
  }
  return value
}
