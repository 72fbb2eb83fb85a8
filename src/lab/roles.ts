import { type Endpoint, isLoopback, isWildcard, sameEndpoint } from '../net/address.ts'
import { X_ADDRESSES } from './owners.ts'
import type { SocketRow } from './sockets.ts'

/**
 * What a socket on X is there for: it waits for anybody; it is the proxy's end towards the client, or towards the server. An
 * unconnected UDP socket with somebody else's address sends answers to clients.
 */
export type Role = 'listens' | 'towards-client' | 'towards-server'

/** `client`: its own end, when it is known. */
export function roleOf(row: SocketRow, client: Endpoint | undefined): Role {
  if (row.state === 'LISTEN') return 'listens'
  if (row.state === 'UNCONN') return hasForeignAddress(row) ? 'towards-client' : 'listens'
  return client !== undefined && sameEndpoint(row.peer, client) ? 'towards-client' : 'towards-server'
}

/** Whether a socket on X has an address that is not X's. */
export function hasForeignAddress({ local: { address } }: SocketRow): boolean {
  return !X_ADDRESSES.has(address) && !isWildcard(address) && !isLoopback(address)
}

/** True when a socket waits for anybody on this port, at whatever address of X. */
export function listensOn(sockets: readonly SocketRow[], port: number): boolean {
  return sockets.some((row) => row.local.port === port && roleOf(row, undefined) === 'listens')
}
