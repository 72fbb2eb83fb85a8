import { type Authority, parseAuthority, sameAuthority } from './authority.ts'
import type { Field } from './hpack.ts'
import { CONTROL, DEFAULT_PORTS, LENGTH, TARGET, TOKEN } from './http-grammar.ts'

/** A request as its fields name it. */
export interface Http2Request extends Authority {
  readonly method: string
  /** As it was sent, with its query: `:path`; empty for CONNECT, as for HTTP/1. */
  readonly target: string
  /** Without the query. */
  readonly path: string
}

const PSEUDO: ReadonlySet<string> = new Set([':method', ':scheme', ':path', ':authority'])
const OF_A_CONNECTION: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])
const ONCE: ReadonlySet<string> = new Set(['host', 'content-length'])
const CAPITAL = /[A-Z]/ // RFC 9113 §8.2.1

/** Reads the fields of a request by RFC 9113 §8.2 and §8.3. A string: why it is malformed. */
export function readRequest(fields: readonly Field[]): Http2Request | string {
  const seen = new Map<string, string>()
  let isBehindPseudo = false
  for (const { name, value } of fields) {
    const isPseudo = PSEUDO.has(name)
    if (!isPseudo && (!TOKEN.test(name) || CAPITAL.test(name))) return 'field name is none' // also other pseudo-fields
    if (isPseudo && isBehindPseudo) return 'pseudo-field behind a field'
    if ((isPseudo || ONCE.has(name)) && seen.has(name)) return `${name} more than once`
    if (CONTROL.test(value) || /^[ \t]|[ \t]$/.test(value))
      return 'field value with control characters or blanks around it'
    if (OF_A_CONNECTION.has(name) || (name === 'te' && value.toLowerCase() !== 'trailers')) return `${name} in HTTP/2`
    if (name === 'content-length' && !LENGTH.test(value)) return 'content-length is no length'
    if (isPseudo || ONCE.has(name)) seen.set(name, value)
    isBehindPseudo ||= !isPseudo
  }
  return requestOf(seen)
}

function requestOf(seen: ReadonlyMap<string, string>): Http2Request | string {
  const method = seen.get(':method')
  const scheme = seen.get(':scheme')
  const path = seen.get(':path')
  if (method === undefined || !TOKEN.test(method)) return 'no method'
  const authority = authorityOf(seen, scheme)
  if (typeof authority === 'string') return authority
  if (method === 'CONNECT') {
    if (scheme !== undefined || path !== undefined) return 'CONNECT with a scheme or a path' // RFC 9113 §8.5
    if (authority.port === undefined) return 'CONNECT to no host with a port'
    return { ...authority, method, target: '', path: '' }
  }
  if (scheme === undefined) return 'no scheme'
  if (path === undefined || !TARGET.test(path)) return 'no path'
  if (!path.startsWith('/') && !(path === '*' && method === 'OPTIONS')) return 'no path' // RFC 9113 §8.3.1
  return { ...authority, method, target: path, path: path.split('?', 1)[0]! }
}

/** `:authority`, or the Host field where there is none; both must say the same (RFC 9113 §8.3.1). */
function authorityOf(seen: ReadonlyMap<string, string>, scheme = ''): Authority | string {
  const text = seen.get(':authority')
  const hostText = seen.get('host')
  const authority = parseAuthority(text ?? hostText ?? '')
  if (authority === undefined || text === '') return ':authority is no host'
  const host = hostText === undefined ? authority : parseAuthority(hostText)
  if (host === undefined || !sameAuthority(authority, host, DEFAULT_PORTS.get(scheme)))
    return ':authority and Host differ'
  return authority
}
