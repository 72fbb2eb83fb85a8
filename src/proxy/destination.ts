import type { Decision, Onward } from '../config/policy-types.ts'
import type { Endpoint } from '../net/address.ts'
import type { PoolPlace } from './pool.ts'
import type { Pools } from './pools.ts'

/** Where a decision sends a flow or session. */
export type Destination =
  /** `place`: in a pool, to be left when the flow ends. */
  | { readonly kind: 'known'; readonly endpoint: Endpoint; readonly place: PoolPlace | undefined }
  /** `why`: for people. */
  | { readonly kind: 'none'; readonly why: string }

interface Wanted {
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /** As the listener says. */
  readonly upstream: Endpoint
}

export function destinationOf({ to }: Onward, { client, originalDst, upstream }: Wanted, pools: Pools): Destination {
  if (to === undefined) return { kind: 'known', endpoint: upstream, place: undefined }
  if (!('pool' in to)) return { kind: 'known', endpoint: withPort(to, originalDst), place: undefined }
  const pool = pools.get(to.pool)
  const place = pool?.enter(client.address)
  if (place !== undefined) return { kind: 'known', endpoint: withPort(place.endpoint, originalDst), place }
  return { kind: 'none', why: `pool ${to.pool}: none of its ${pool?.servers.length ?? 0} servers is up` }
}

export function isOnward(
  decision: Decision,
): decision is Decision & Onward & { readonly kind: 'forward' | 'via' | 'handle' } {
  return decision.kind === 'forward' || decision.kind === 'via' || decision.kind === 'handle'
}

/** Where it would go, as far as that is known: of a pool a server is chosen when it is entered. */
export function likelyUpstream(
  { to }: Pick<Onward, 'to'>,
  { originalDst, upstream }: Omit<Wanted, 'client'>,
): Endpoint {
  return to === undefined || 'pool' in to ? upstream : withPort(to, originalDst)
}

/** Port 0 keeps the original one. */
export function withPort(server: Endpoint, { port }: Endpoint): Endpoint {
  return server.port === 0 ? { address: server.address, port } : server
}
