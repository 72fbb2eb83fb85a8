import { lookup } from 'node:dns/promises'
import type { ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, familyOf, parseAddress } from '../net/address.ts'

/** The fixed upstream of a listener: an address for each family it can be reached by; port 0 keeps the original one. */
export interface Target {
  readonly addresses: { readonly 4?: string; readonly 6?: string }
  readonly port: number
}

/** What is dialled for a client that dialled `originalDst`. */
export function upstreamOf(originalDst: Endpoint, target: Target | undefined): Endpoint {
  if (target === undefined) return originalDst
  const { addresses, port } = target
  const address = addresses[familyOf(originalDst.address)] ?? addresses[4] ?? addresses[6] ?? originalDst.address
  return { address, port: port === 0 ? originalDst.port : port }
}

/** The target of a listener, its name resolved; undefined when it dials the original destination. @throws LimpidError LIMPID_HOST_NAME */
export async function resolveTarget(listener: ListenerConfig): Promise<Target | undefined> {
  if (listener.to === undefined) return undefined
  const { host, port } = listener.to
  const literal = parseAddress(host)
  if (literal !== undefined) return { addresses: { [familyOf(literal)]: literal }, port }
  try {
    const found = await lookup(host, { all: true, verbatim: true })
    const first = (family: 4 | 6): string | undefined => found.find((entry) => entry.family === family)?.address
    return { addresses: { ...pick(4, first(4)), ...pick(6, first(6)) }, port }
  } catch (cause) {
    throw new LimpidError('LIMPID_HOST_NAME', `cannot resolve ${host} (listener ${listener.name})`, {
      cure: 'write an address, or check the name with: getent hosts NAME',
      cause,
    })
  }
}

function pick(family: 4 | 6, address: string | undefined): Target['addresses'] {
  return address === undefined ? {} : { [family]: address }
}
