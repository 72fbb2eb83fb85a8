import { type Family, familyOf, parseAddress } from '../net/address.ts'
import type { Prefix } from '../net/prefix.ts'
import { DEFAULT_TIMEOUTS } from './defaults.ts'
import { buildDns, type DnsInput, familyOfServers } from './dns.ts'
import { chooseEndpoints } from './listening.ts'
import { buildMatch, checkProcessMatch, type MatchInput, withoutAllPorts } from './match.ts'
import { missing, type Report } from './problem.ts'
import { buildTimeouts, type TimeoutsInput } from './timeouts.ts'
import type { Intercept, ListenerConfig, OnDown, Path, Protocol, Source } from './types.ts'
import type { ListenValue, Target } from './values.ts'

/** A listener as it was asked for: what is left out gets its default from buildListener(). */
export interface ListenerInput extends MatchInput {
  readonly name?: string | undefined
  readonly intercept?: Intercept | undefined
  readonly paths?: readonly Path[] | undefined
  readonly protocols?: readonly Protocol[] | undefined
  readonly listen?: readonly ListenValue[] | undefined
  readonly family?: readonly Family[] | undefined
  readonly exclude?: MatchInput | undefined
  readonly addressedHere?: boolean | undefined
  readonly source?: Source | undefined
  readonly to?: Target | undefined
  readonly onDown?: OnDown | undefined
  readonly fastOpen?: boolean | undefined
  readonly acceptProxyProtocol?: { readonly from?: readonly Prefix[] | undefined } | undefined
  readonly timeouts?: TimeoutsInput | undefined
  readonly dns?: DnsInput | undefined
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

const TCP: readonly Protocol[] = ['tcp']
const DNS_PROTOCOLS: readonly Protocol[] = ['udp', 'tcp'] // answers that a datagram cannot hold are asked for by TCP
const DNS_PORTS: ListenerInput['ports'] = [[{ from: 53, to: 53 }]]
const PACKETS_ONLY = ['interfaces', 'destinations', 'ports', 'uids', 'cgroups', 'fwmarks'] as const // who may dial (`sources`) is checked by the proxy too

/** Completes a listener and checks what its values say together; problems go to `report`. */
export function buildListener(input: ListenerInput, context: BuildContext): ListenerConfig {
  const { index, report } = context
  const intercept = input.intercept ?? 'tproxy'
  const source = input.source ?? 'proxy'
  const families = chooseFamilies(input, source, context)
  const paths = intercept === 'none' ? [] : [...new Set(input.paths ?? (['forwarded'] as const))]
  if (intercept === 'none') checkForwarder(input, report)
  else checkProcessMatch(input, paths, report)
  if (input.addressedHere === true && input.to === undefined && input.dns?.upstreams === undefined) {
    report({ path: ['addressedHere'], message: 'addressedHere needs "to": without it Limpid would dial itself' })
  }
  if (input.onDown === 'closed' && !context.rulesInstalled) {
    report({ path: ['onDown'], message: 'onDown closed needs the kernel rules, which are switched off' })
  }
  checkProxyProtocol(input, report)
  const listen = chooseEndpoints(input, intercept, families, index, report)
  const match = buildMatch(input.dns === undefined ? input : { ...input, ports: input.ports ?? DNS_PORTS })
  return {
    name: input.name ?? `listener-${index + 1}`,
    intercept,
    paths,
    listen,
    families,
    protocols: [...new Set(input.protocols ?? (input.dns === undefined ? TCP : DNS_PROTOCOLS))],
    match: intercept === 'mark' ? { ...match, ports: onPort(listen) } : withoutAllPorts(match),
    exclude: buildMatch(input.exclude ?? {}),
    addressedHere: input.addressedHere ?? false,
    source,
    to: input.to,
    onDown: input.onDown ?? 'open',
    fastOpen: input.fastOpen ?? false,
    acceptProxyProtocol: input.acceptProxyProtocol && { from: input.acceptProxyProtocol.from ?? [] },
    timeouts: { ...DEFAULT_TIMEOUTS, ...buildTimeouts(input.timeouts ?? {}) },
    dns: buildDns(input.dns, { hasTo: input.to !== undefined, source, families, report }),
  }
}

/** Packets that are only marked reach the listener on their own port. */
function onPort(listen: ListenerConfig['listen']): ListenerConfig['match']['ports'] {
  const [endpoint] = listen
  return endpoint === undefined ? [] : [{ from: endpoint.port, to: endpoint.port }]
}

function checkProxyProtocol({ acceptProxyProtocol, protocols }: ListenerInput, report: Report): void {
  if (acceptProxyProtocol === undefined) return
  const path = ['acceptProxyProtocol']
  if (acceptProxyProtocol.from === undefined) {
    report({ path, message: 'expected "from": whoever may say for whom he comes is believed' })
  }
  if (protocols !== undefined && !protocols.includes('tcp')) {
    report({ path, at: 'key', message: '"acceptProxyProtocol" has no meaning without tcp' })
  }
}

function checkForwarder(input: ListenerInput, report: Report): void {
  const isTold = input.acceptProxyProtocol !== undefined
  if (input.to === undefined && input.dns?.upstreams === undefined && !isTold) {
    report(missing('to', 'with intercept none there is no original destination to dial'))
  }
  if (input.listen === undefined) {
    report(missing('listen', 'with intercept none clients dial the listener itself'))
  }
  const meaningless = (path: readonly string[]): void =>
    report({ path, at: 'key', message: `"${path.at(-1)}" has no meaning with intercept none, which takes no packets` })
  for (const key of [...PACKETS_ONLY, 'paths', 'addressedHere', 'onDown'] as const) {
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
  const dialled = input.to === undefined ? familyOfServers(input.dns?.upstreams) : literalFamily(input.to.host)
  const given = typeof source === 'object' ? familyOf(source.address) : undefined
  const only = given ?? (source === 'proxy' ? undefined : dialled)
  const whyOnly = given === undefined ? `source and "to" leave IPv${only} only` : `the source is an IPv${given} address`
  if (given !== undefined && dialled !== undefined && given !== dialled) {
    report({ path: ['source'], message: `an IPv${given} source cannot dial "to", which is IPv${dialled}` })
  }
  const onFixedTarget = typeof source === 'object' && input.to !== undefined
  const bound = (input.listen ?? []).flatMap(({ address }) => (address === undefined ? [] : [familyOf(address)]))
  const listened = input.listen?.some(({ address }) => address === undefined) ? [] : [...new Set(bound)].toSorted()
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

/** The same object, with all that hangs on it unchangeable. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const part of Object.values(value)) deepFreeze(part)
  }
  return value
}
