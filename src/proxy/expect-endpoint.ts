import { LimpidError } from '../errors.ts'
import { type Endpoint, parseAddress } from '../net/address.ts'

/**
 * What a program gave as an address and a port, checked as types cannot: an IP literal, and a whole port from `minPort`.
 * @throws LimpidError LIMPID_USAGE, which names the caller by `where`.
 */
export function expectEndpoint(where: string, given: unknown, minPort: 0 | 1): Endpoint {
  const { address, port = 0 } = (given ?? {}) as { address?: unknown; port?: unknown }
  const literal = typeof address === 'string' ? parseAddress(address) : undefined
  if (literal === undefined) {
    throw usage(where, 'an IP address', address, 'resolve names with dns.promises.lookup() before')
  }
  if (typeof port !== 'number' || !Number.isInteger(port) || port < minPort || port > 65_535) {
    throw usage(where, `a port from ${minPort} to 65535`, port, 'give { address, port }')
  }
  return { address: literal, port }
}

function usage(where: string, expected: string, found: unknown, cure: string): LimpidError {
  const shown = typeof found === 'string' ? JSON.stringify(found) : String(found)
  return new LimpidError('LIMPID_USAGE', `${where}: expected ${expected}, found ${shown}`, { cure })
}
