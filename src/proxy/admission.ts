import type { ListenerConfig } from '../config/types.ts'
import { type Endpoint, isNeverForeign, sameEndpoint } from '../net/address.ts'
import { prefixContains } from '../net/prefix.ts'
import { arrivesRewritten } from './arrival.ts'
import type { ProxyContext } from './context.ts'
import type { RefusalReason } from './record.ts'
import type { DialSource } from './source.ts'

/** Who would be dialled, from where and why: a flow or session before its dial. */
export interface Parties {
  readonly listener: ListenerConfig
  readonly client: Endpoint
  /** The proxy in front that told of the client and its destination; undefined: the client came itself. */
  readonly front?: Endpoint | undefined
  /** Our end of what the client sent. */
  readonly reached: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  readonly source: DialSource
}

/** Why this flow must not be dialled; undefined when it may. */
export function refusalOf(flow: Parties, context: ProxyContext): RefusalReason | undefined {
  if (isLoop(flow, context)) return 'loop'
  if (!isSourceAllowed(flow, context)) return 'source'
  const { flowsPerClient } = context.limits
  const isOver = flowsPerClient > 0 && (context.flowsByClient.get(flow.client.address) ?? 0) > flowsPerClient
  return isOver ? 'client-limit' : undefined
}

/** Counts a flow of a client, by 1, or its end, by -1. */
export function countClient(counts: Map<string, number>, address: string, by: 1 | -1): void {
  const count = (counts.get(address) ?? 0) + by
  if (count > 0) counts.set(address, count)
  else counts.delete(address)
}

/**
 * Would we dial ourselves? A flow to one of our listeners (dialled directly, or as its upstream) always; an intercepted
 * flow to an address of this host when it would be dialled where the client did.
 */
function isLoop(flow: Parties, context: ProxyContext): boolean {
  if (isOurListener(flow.upstream, context)) return true
  const dialsElsewhere = flow.listener.to !== undefined || (flow.listener.dns?.upstreams ?? []).length > 0
  if (flow.listener.intercept === 'none' && dialsElsewhere) return false
  if (isOurListener(flow.originalDst, context)) return true
  // nothing was rewritten; said of an address, too, that we have had for less than a second
  if (arrivesRewritten(flow.listener.intercept) && sameEndpoint(flow.originalDst, flow.reached)) return true
  return !dialsElsewhere && isOurs(flow.originalDst.address, context)
}

/** A listener on all addresses takes what is dialled to any of ours; dialling the unspecified address reaches loopback. */
function isOurListener({ address, port }: Endpoint, context: ProxyContext): boolean {
  const reached = UNSPECIFIED.get(address) ?? address
  return context.listening.some(
    (own) =>
      own.port === port && (own.address === reached || (UNSPECIFIED.has(own.address) && isOurs(address, context))),
  )
}

const UNSPECIFIED: ReadonlyMap<string, string> = new Map([
  ['0.0.0.0', '127.0.0.1'],
  ['::', '::1'],
])

function isOurs(address: string, context: ProxyContext): boolean {
  // whatever is dialled at 127/8, ::1 or the unspecified address reaches this host
  return isNeverForeign(address) || context.own.has(address, context.resources.loop.now)
}

/**
 * May this client be served, and its address be lent towards the upstream? Never lent are addresses that are nobody
 * else's (loopback, multicast), ours (the server would take the client for the proxy) unless the clients are processes of
 * this host, and the server's own (it would answer itself). Nobody outside can be a client with an address of ours: our
 * SYN-ACK would come to ourselves. With a proxy in front, packets are the proxy's: it is one of the listener's sources, or not.
 */
function isSourceAllowed(flow: Parties, context: ProxyContext): boolean {
  const { address } = flow.client
  const { sources } = flow.listener.match
  const sender = (flow.front ?? flow.client).address
  if (sources.length > 0 && !sources.some((prefix) => prefixContains(prefix, sender))) return false
  if (flow.listener.exclude.sources.some((prefix) => prefixContains(prefix, sender))) return false
  if (flow.source.kind !== 'client' && flow.source.kind !== 'client-port') return true
  if (isNeverForeign(address) || address === flow.upstream.address) return false
  return flow.listener.paths.includes('local') || !isOurs(address, context)
}
