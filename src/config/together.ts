import { type Endpoint, familyOf, formatEndpoint, isWildcard } from '../net/address.ts'
import { bypassProblems } from './bypass.ts'
import type { Problem } from './problem.ts'
import type { Config, Match, Protocol, RulesConfig } from './types.ts'

/** What the parts of a configuration must not do to each other. Paths are absolute. */
export function* problemsTogether(config: Config): Generator<Problem> {
  yield* nameProblems('listener', config.listeners)
  yield* nameProblems('forward', config.forwards)
  yield* endpointProblems(config)
  yield* markProblems(config)
  yield* bypassProblems(config)
  for (const [index, { match, exclude }] of config.listeners.entries()) {
    yield* fwmarkProblems(['listeners', index], match, exclude, config.rules)
  }
  for (const [index, { match, exclude }] of config.forwards.entries()) {
    yield* fwmarkProblems(['forwards', index], match, exclude, config.rules)
  }
}

function* nameProblems(kind: 'listener' | 'forward', named: readonly { readonly name: string }[]): Generator<Problem> {
  const names = new Set<string>()
  for (const [index, { name }] of named.entries()) {
    if (names.has(name)) {
      yield { path: [`${kind}s`, index, 'name'], message: `${kind} name "${name}" is used twice` }
    }
    names.add(name)
  }
}

interface Taken {
  readonly endpoint: Endpoint
  readonly by: string
  readonly protocols: readonly Protocol[]
}

function* endpointProblems({ listeners }: Config): Generator<Problem> {
  const takenOnPort = new Map<number, Taken[]>()
  for (const [index, listener] of listeners.entries()) {
    for (const endpoint of listener.listen) {
      const taken = takenOnPort.get(endpoint.port) ?? []
      const other = taken.find(
        (one) =>
          overlaps(one.endpoint.address, endpoint.address) &&
          one.protocols.some((protocol) => listener.protocols.includes(protocol)),
      )
      if (other !== undefined) {
        const what = other.endpoint.address === endpoint.address ? '' : ` with ${formatEndpoint(other.endpoint)}`
        yield {
          path: ['listeners', index, 'listen'],
          message: `${formatEndpoint(endpoint)} is taken by listener "${other.by}" already${what}`,
        }
      }
      takenOnPort.set(endpoint.port, [...taken, { endpoint, by: listener.name, protocols: listener.protocols }])
    }
  }
}

/** bind(2): a socket on all addresses has the port of each. */
function overlaps(a: string, b: string): boolean {
  return familyOf(a) === familyOf(b) && (a === b || isWildcard(a) || isWildcard(b))
}

function* markProblems({ rules, listeners }: Config): Generator<Problem> {
  const mask = hex(rules.markMask)
  for (const key of ['interceptMark', 'bypassMark'] as const) {
    if ((rules[key] & ~rules.markMask) !== 0) {
      yield { path: ['rules', key], message: `${key} ${hex(rules[key])} has bits outside markMask ${mask}` }
    }
  }
  if (rules.interceptMark === rules.bypassMark) {
    yield { path: ['rules', 'bypassMark'], message: `bypassMark and interceptMark are both ${hex(rules.bypassMark)}` }
  }
  const both = (rules.interceptMark | rules.bypassMark) >>> 0
  const marksLocal = listeners.some(
    ({ intercept, paths }) => paths.includes('local') && (intercept === 'tproxy' || intercept === 'mark'),
  )
  if (
    marksLocal &&
    rules.interceptMark !== rules.bypassMark &&
    (both === rules.interceptMark || both === rules.bypassMark)
  ) {
    yield {
      path: ['rules', 'interceptMark'],
      message: `interceptMark ${hex(rules.interceptMark)} and bypassMark ${hex(rules.bypassMark)} must each have a bit of its own: the path local has the mark ${hex(both)}`,
    }
  }
  if (RESERVED_ROUTE_TABLES.has(rules.routeTable)) {
    yield {
      path: ['rules', 'routeTable'],
      message: `route table ${rules.routeTable} is the kernel's own (default, main or local)`,
    }
  }
}

const RESERVED_ROUTE_TABLES = new Set([253, 254, 255]) // RT_TABLE_DEFAULT, MAIN, LOCAL: linux/rtnetlink.h

/** Marks within our mask are given by Limpid alone, and its own packets are never taken. */
function* fwmarkProblems(
  path: readonly (string | number)[],
  match: Match,
  exclude: Match,
  { markMask }: RulesConfig,
): Generator<Problem> {
  for (const [keys, { fwmarks }] of [
    [['fwmarks'], match],
    [['exclude', 'fwmarks'], exclude],
  ] as const) {
    const ours = fwmarks.find(({ value }) => (value & markMask) !== 0)
    if (ours === undefined) continue
    yield {
      path: [...path, ...keys],
      message: `fwmark ${hex(ours.value)} has bits of markMask ${hex(markMask)}, which are Limpid's own`,
    }
  }
}

function hex(mark: number): string {
  return `0x${mark.toString(16)}`
}
