import { formatEndpoint } from '../net/address.ts'
import type { Problem } from './problem.ts'
import type { Config, RulesConfig } from './types.ts'

/** What the listeners of a configuration must not do to each other, and the marks to theirs. Paths are absolute. */
export function* problemsTogether(config: Config): Generator<Problem> {
  const names = new Set<string>()
  const endpoints = new Map<string, string>()
  for (const [index, listener] of config.listeners.entries()) {
    if (names.has(listener.name)) {
      yield { path: ['listeners', index, 'name'], message: `listener name "${listener.name}" is used twice` }
    }
    names.add(listener.name)
    for (const endpoint of listener.listen) {
      const text = formatEndpoint(endpoint)
      const other = endpoints.get(text)
      if (other !== undefined) {
        yield { path: ['listeners', index, 'listen'], message: `${text} is taken by listener "${other}" already` }
      }
      endpoints.set(text, listener.name)
    }
  }
  yield* markProblems(config.rules)
}

function* markProblems(rules: RulesConfig): Generator<Problem> {
  const mask = hex(rules.markMask)
  for (const key of ['interceptMark', 'bypassMark'] as const) {
    if ((rules[key] & ~rules.markMask) !== 0) {
      yield { path: ['rules', key], message: `${key} ${hex(rules[key])} has bits outside markMask ${mask}` }
    }
  }
  if (rules.interceptMark === rules.bypassMark) {
    yield { path: ['rules', 'bypassMark'], message: `bypassMark and interceptMark are both ${hex(rules.bypassMark)}` }
  }
  if (RESERVED_ROUTE_TABLES.has(rules.routeTable)) {
    yield {
      path: ['rules', 'routeTable'],
      message: `route table ${rules.routeTable} is the kernel's own (default, main or local)`,
    }
  }
}

const RESERVED_ROUTE_TABLES = new Set([253, 254, 255]) // RT_TABLE_DEFAULT, MAIN, LOCAL: linux/rtnetlink.h

function hex(mark: number): string {
  return `0x${mark.toString(16)}`
}
