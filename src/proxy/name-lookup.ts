import { Resolver } from 'node:dns'
import { type Endpoint, type Family, formatEndpoint, parseAddress } from '../net/address.ts'

const TRY_MS = 1_000
const TRIES = 2 // of each server

export interface FoundAddress {
  /** Canonical. */
  readonly address: string
  readonly ttlSeconds: number
}

/** Asks name servers. */
export interface NameLookup {
  /** Later, once: the addresses of a name and family, beyond any CNAME; none where it has none; undefined where nobody says so. */
  ask(name: string, family: Family, done: (found: readonly FoundAddress[] | undefined) => void): void
  /** What is asked for yet is given up. */
  close(): void
}

const HAS_NONE: ReadonlySet<string | undefined> = new Set(['ENOTFOUND', 'ENODATA'])

/** By c-ares, which follows CNAMEs and reads no hosts file. `servers` empty: those of /etc/resolv.conf. */
export function nameLookup(servers: readonly Endpoint[]): NameLookup {
  const resolver = new Resolver({ timeout: TRY_MS, tries: TRIES })
  if (servers.length > 0) resolver.setServers(servers.map(formatEndpoint))
  return {
    ask(name, family, done) {
      const answered = (error: NodeJS.ErrnoException | null, records: readonly { address: string; ttl: number }[]) => {
        if (error !== null) done(HAS_NONE.has(error.code) ? [] : undefined)
        else done(records.map(({ address, ttl }) => ({ address: parseAddress(address) ?? address, ttlSeconds: ttl })))
      }
      try {
        if (family === 4) resolver.resolve4(name, { ttl: true }, answered)
        else resolver.resolve6(name, { ttl: true }, answered)
      } catch {
        setImmediate(done, undefined) // no name for c-ares
      }
    },
    close: () => resolver.cancel(),
  }
}
