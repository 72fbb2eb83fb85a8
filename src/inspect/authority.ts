import { parseAddress, parsePort } from '../net/address.ts'
import { canonicalHost } from '../net/host-name.ts'

/** A host and perhaps a port, as a Host field, a request's target or `:authority` names them. */
export interface Authority {
  /** Canonical; undefined when it is an address, or empty. */
  readonly host: string | undefined
  /** Canonical text of an IP literal; undefined when it is a name, or empty. */
  readonly address: string | undefined
  readonly port: number | undefined
}

const NOBODY: Authority = { host: undefined, address: undefined, port: undefined }
const DIGITS_AND_DOTS = /^[\d.]+$/ // asked first, since a name takes the reader of addresses 40 µs: it throws within
const FORM = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]*)(?::(\d*))?$/

/**
 * uri-host [":" port] of RFC 9110 §7.2, and less than RFC 3986 §3.2 allows: no userinfo, no percent-encoding, no IPvFuture and no zone,
 * since servers differ in what they make of them. Undefined for all that is neither a host name, an address, nor empty.
 */
export function parseAuthority(text: string): Authority | undefined {
  if (text === '') return NOBODY
  const parts = FORM.exec(text)
  if (parts === null) return undefined
  const [, name = '', digits = ''] = parts
  const port = digits === '' ? undefined : parsePort(digits) // `example.org:` is allowed, RFC 3986 §3.2.3
  if (digits !== '' && port === undefined) return undefined
  const inBrackets = name.startsWith('[')
  const address = inBrackets ? ipv6(name.slice(1, -1)) : DIGITS_AND_DOTS.test(name) ? parseAddress(name) : undefined
  if (address !== undefined) return { host: undefined, address, port }
  const host = inBrackets ? undefined : canonicalHost(name)
  return host === undefined ? undefined : { host, address, port }
}

/** `[10.0.0.1]` is no IPv6 literal; `[::ffff:10.0.0.1]` is one, and the same address as 10.0.0.1. */
function ipv6(literal: string): string | undefined {
  return literal.includes(':') ? parseAddress(literal) : undefined
}

/** Whether two of them lead to the same server, when what has no port means `defaultPort`. */
export function sameAuthority(a: Authority, b: Authority, defaultPort: number | undefined): boolean {
  return a.host === b.host && a.address === b.address && (a.port ?? defaultPort) === (b.port ?? defaultPort)
}
