import type { ListenerConfig, Source } from '../config/types.ts'
import { type Family, familyOf, formatEndpoint } from '../net/address.ts'

/**
 * Who will know whom for one way of using a listener. Y is the client, X this host, Z the server; a peer is what
 * getpeername(2) says at the one end about the other.
 */
export interface KnowsRow {
  readonly listener: string
  readonly family: Family
  /** Whom the client dials: this host, or the server itself (any address that is intercepted). */
  readonly clientDials: 'proxy' | 'server'
  /** The client's peer: whom it dialled, always. */
  readonly clientSees: 'proxy' | 'server'
  /** The server's peer: this host; the client, with its own port or with another one; or an address from the config. */
  readonly serverSees: 'proxy' | 'client' | 'client:port' | (string & {})
  /** Whose address the client learns. */
  readonly clientKnows: 'proxy' | 'server'
  /** Whose address the server learns: `other` is a configured address of neither. */
  readonly serverKnows: 'proxy' | 'client' | 'other'
  /** `Y knows X; Z knows Y, not X`. */
  readonly verdict: string
  /** What somebody must set up for the client's part, and for the server's; `nothing` when nobody must. */
  readonly clientSetup: string
  readonly serverSetup: string
}

/** The rows for a listener: one for each family and way of dialling. `own`: the addresses of this host. */
export function predictKnows(listener: ListenerConfig, own: ReadonlySet<string>): KnowsRow[] {
  const families = listener.families.filter((family) => servesFamily(listener.source, family))
  const dials: KnowsRow['clientDials'][] =
    listener.intercept === 'none' ? ['proxy'] : listener.addressedHere ? ['server', 'proxy'] : ['server']
  return families.flatMap((family) => dials.map((clientDials) => predictRow(listener, family, clientDials, own)))
}

function predictRow(
  listener: ListenerConfig,
  family: Family,
  clientDials: KnowsRow['clientDials'],
  own: ReadonlySet<string>,
): KnowsRow {
  const serverKnows = knownToServer(listener.source, own)
  return {
    listener: listener.name,
    family,
    clientDials,
    clientSees: clientDials,
    serverSees: seenByServer(listener.source),
    clientKnows: clientDials,
    serverKnows,
    verdict: verdict(clientDials, serverKnows, listener.source),
    clientSetup: clientSetup(listener, family, clientDials),
    serverSetup: serverSetup(listener.source, serverKnows),
  }
}

function servesFamily(source: Source, family: Family): boolean {
  return typeof source !== 'object' || familyOf(source.address) === family
}

function seenByServer(source: Source): KnowsRow['serverSees'] {
  if (typeof source === 'object') return source.address
  return source === 'client-port' ? 'client:port' : source
}

function knownToServer(source: Source, own: ReadonlySet<string>): KnowsRow['serverKnows'] {
  if (typeof source === 'object') return own.has(source.address) ? 'proxy' : 'other'
  return source === 'proxy' ? 'proxy' : 'client'
}

function verdict(clientKnows: KnowsRow['clientKnows'], serverKnows: KnowsRow['serverKnows'], source: Source): string {
  const address = typeof source === 'object' ? source.address : ''
  const client = clientKnows === 'proxy' ? 'Y knows X' : 'Y knows Z'
  if (clientKnows === 'proxy' && serverKnows === 'proxy') return 'Y and Z know X, not each other'
  if (clientKnows === 'server' && serverKnows === 'client') return 'Y and Z know each other, not X'
  const server = {
    proxy: 'Z knows X, not Y',
    client: 'Z knows Y, not X',
    other: `Z knows ${address}, neither X nor Y`,
  }
  return `${client}; ${server[serverKnows]}`
}

function clientSetup(listener: ListenerConfig, family: Family, dials: KnowsRow['clientDials']): string {
  if (listener.intercept === 'tproxy') return dials === 'server' ? 'nothing; its packets must pass X' : 'dials X'
  const endpoint = listener.listen.find(({ address }) => familyOf(address) === family)
  if (endpoint === undefined) return 'dials X'
  const wildcard = endpoint.address === '0.0.0.0' || endpoint.address === '::'
  return `dials ${wildcard ? `X:${endpoint.port}` : formatEndpoint(endpoint)}`
}

function serverSetup(source: Source, serverKnows: KnowsRow['serverKnows']): string {
  if (serverKnows === 'proxy') return 'nothing'
  return typeof source === 'object' ? `a route to ${source.address} through X` : "a route to Y's network through X"
}
