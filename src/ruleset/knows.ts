import type { ForwardConfig, ListenerConfig, Path, Source } from '../config/types.ts'
import { type Family, familyOf, formatEndpoint, isWildcard } from '../net/address.ts'
import { formatPortRange } from '../net/ports.ts'

/**
 * Who will know whom for one way of using a listener, or a forward. Y is the client, X this host, Z the server; a peer is
 * what getpeername(2) says at the one end about the other.
 */
export interface KnowsRow {
  /** The listener's name, or the forward's. */
  readonly listener: string
  /** The client is a process of this host, by the path `local`. */
  readonly local: boolean
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

/** The rows for a listener: one for each family and way of dialling, and of the client's place. `own`: the addresses of this host. */
export function predictKnows(listener: ListenerConfig, own: ReadonlySet<string>): KnowsRow[] {
  const families = listener.families.filter((family) => servesFamily(listener.source, family))
  const dials: KnowsRow['clientDials'][] =
    listener.intercept === 'none' ? ['proxy'] : listener.addressedHere ? ['server', 'proxy'] : ['server']
  const outside = listener.intercept === 'none' || listener.paths.some((path) => path !== 'local')
  return families.flatMap((family) => [
    ...(outside ? dials.map((clientDials) => predictRow(listener, family, clientDials, own)) : []),
    ...(listener.paths.includes('local') ? [predictLocalRow(listener, family, own)] : []),
  ])
}

/** The row for ports that the kernel passes on: conntrack rewrites the server's address alone, unless this host hides the client. */
export function predictForward(forward: ForwardConfig): KnowsRow {
  const { name, match, to, source } = forward
  const clientDials = match.destinations.length === 0 ? 'proxy' : 'server'
  const ports = match.ports.map(formatPortRange).join(',')
  return {
    listener: name,
    local: false,
    family: familyOf(to.address),
    clientDials,
    clientSees: clientDials,
    serverSees: source === 'proxy' ? 'proxy' : 'client:port',
    clientKnows: clientDials,
    serverKnows: source,
    verdict: verdict(clientDials, source, source),
    clientSetup: clientDials === 'server' ? PASSES_BY.forwarded : `dials X${ports === '' ? '' : `:${ports}`}`,
    serverSetup: serverSetup(source, source, []),
  }
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
    local: false,
    family,
    clientDials,
    clientSees: clientDials,
    serverSees: seenByServer(listener.source),
    clientKnows: clientDials,
    serverKnows,
    verdict: verdict(clientDials, serverKnows, listener.source),
    clientSetup: clientSetup(listener, family, clientDials),
    serverSetup: serverSetup(listener.source, serverKnows, listener.paths),
  }
}

/** The client's address is one of this host: the server learns no more of it than of the proxy. */
function predictLocalRow(listener: ListenerConfig, family: Family, own: ReadonlySet<string>): KnowsRow {
  const { source } = listener
  const foreign = typeof source === 'object' && !own.has(source.address)
  return {
    listener: listener.name,
    local: true,
    family,
    clientDials: 'server',
    clientSees: 'server',
    serverSees: typeof source === 'object' ? source.address : 'proxy',
    clientKnows: 'server',
    serverKnows: foreign ? 'other' : 'proxy',
    verdict: `Y, a process of X, knows Z; Z knows ${foreign ? `${source.address}, not X` : 'X'}`,
    clientSetup: 'nothing; it runs on X',
    serverSetup: foreign ? serverSetup(source, 'other', ['local']) : 'nothing',
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

const PASSES_BY: Readonly<Record<Exclude<Path, 'local'>, string>> = {
  forwarded: 'nothing; its packets must pass X',
  bridged: 'nothing; its frames must cross a bridge of X',
}

function clientSetup(listener: ListenerConfig, family: Family, dials: KnowsRow['clientDials']): string {
  if (listener.intercept !== 'none') {
    if (dials === 'proxy') return 'dials X'
    return isBridgedOnly(listener.paths) ? PASSES_BY.bridged : PASSES_BY.forwarded
  }
  const endpoint = listener.listen.find(({ address }) => familyOf(address) === family)
  if (endpoint === undefined) return 'dials X'
  const wildcard = isWildcard(endpoint.address)
  return `dials ${wildcard ? `X:${endpoint.port}` : formatEndpoint(endpoint)}`
}

function serverSetup(source: Source, serverKnows: KnowsRow['serverKnows'], paths: readonly Path[]): string {
  if (serverKnows === 'proxy') return 'nothing'
  if (typeof source === 'object') return `a route to ${source.address} through X`
  return isBridgedOnly(paths) ? 'nothing; its frames must cross the bridge too' : "a route to Y's network through X"
}

function isBridgedOnly(paths: readonly Path[]): boolean {
  return paths.includes('bridged') && !paths.includes('forwarded')
}
