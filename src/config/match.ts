import { isAllPorts, type NumberRange, type PortRange } from '../net/ports.ts'
import type { Prefix } from '../net/prefix.ts'
import type { Report } from './problem.ts'
import type { FwmarkMatch, Match, Path } from './types.ts'

export interface MatchInput {
  readonly interfaces?: readonly string[] | undefined
  readonly sources?: readonly Prefix[] | undefined
  readonly destinations?: readonly Prefix[] | undefined
  readonly ports?: readonly (readonly PortRange[])[] | undefined
  readonly uids?: readonly NumberRange[] | undefined
  readonly cgroups?: readonly string[] | undefined
  readonly fwmarks?: readonly FwmarkMatch[] | undefined
}

export function buildMatch(input: MatchInput): Match {
  return {
    interfaces: [...new Set(input.interfaces ?? [])],
    sources: input.sources ?? [],
    destinations: input.destinations ?? [],
    ports: input.ports?.flat() ?? [],
    uids: input.uids ?? [],
    cgroups: [...new Set(input.cgroups ?? [])],
    fwmarks: input.fwmarks ?? [],
  }
}

/** No condition is cheaper than one that is always true. */
export function withoutAllPorts(match: Match): Match {
  return isAllPorts(match.ports) ? { ...match, ports: [] } : match
}

const OF_PROCESSES = ['uids', 'cgroups'] as const

/** Only for packets that are made here is it known whose they are. */
export function checkProcessMatch(
  input: MatchInput & { readonly exclude?: MatchInput | undefined },
  paths: readonly Path[],
  report: Report,
): void {
  for (const key of OF_PROCESSES) {
    if (input[key] !== undefined && paths.some((path) => path !== 'local')) {
      report({ path: [key], at: 'key', message: `"${key}" needs paths: local; who sent a packet is known here alone` })
    }
    if (input.exclude?.[key] !== undefined && !paths.includes('local')) {
      report({ path: ['exclude', key], at: 'key', message: `"${key}" has no meaning without the path local` })
    }
  }
}
