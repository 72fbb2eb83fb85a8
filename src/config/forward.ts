import { familyOf, isNeverForeign, parseAddress } from '../net/address.ts'
import { DEFAULT_HEALTH_MS } from './defaults.ts'
import { buildMatch, checkProcessMatch, type MatchInput, withoutAllPorts } from './match.ts'
import { missing, type Report } from './problem.ts'
import type { ForwardConfig, Protocol } from './types.ts'
import type { Target } from './values.ts'

/** A forward as it was asked for. */
export interface ForwardInput extends MatchInput {
  readonly name?: string | undefined
  readonly protocols?: readonly Protocol[] | undefined
  readonly exclude?: MatchInput | undefined
  readonly to: Target
  readonly source?: 'proxy' | 'client' | undefined
  /** Milliseconds. */
  readonly health?: number | undefined
}

/** Completes a forward; problems go to `report`. `index`: its place in the list, from 0. */
export function buildForward(input: ForwardInput, index: number, report: Report): ForwardConfig {
  const address = parseAddress(input.to.host)
  if (address === undefined) {
    report({ path: ['to'], message: `expected an address: the kernel knows no names such as ${input.to.host}` })
  }
  if (address !== undefined && isNeverForeign(address)) {
    report({ path: ['to'], message: `expected the address of another host, found ${address}` })
  }
  if ((input.ports ?? []).length === 0) report(missing('ports', 'a forward takes the ports that it names'))
  checkProcessMatch(input, ['forwarded'], report)
  for (const key of ['sources', 'destinations'] as const) {
    const others = address === undefined ? [] : (input[key] ?? []).filter(({ family }) => family !== familyOf(address))
    if (others.length === 0) continue
    report({
      path: [key],
      message: `an IPv${others[0]!.family} address cannot be passed on to "to", which is IPv${familyOf(address!)}`,
    })
  }
  const protocols = [...new Set(input.protocols ?? (['tcp'] as const))]
  const hasTcp = protocols.includes('tcp')
  if (!hasTcp && (input.health ?? 0) > 0) {
    report({
      path: ['health'],
      message: 'health needs the protocol tcp: a UDP server cannot be asked whether it is there',
    })
  }
  return {
    name: input.name ?? `forward-${index + 1}`,
    protocols,
    match: withoutAllPorts(buildMatch(input)),
    exclude: buildMatch(input.exclude ?? {}),
    to: { address: address ?? '', port: input.to.port },
    source: input.source ?? 'client',
    healthMs: input.health ?? (hasTcp ? DEFAULT_HEALTH_MS : 0),
  }
}
