import { type Authority, parseAuthority, sameAuthority } from './authority.ts'
import { DEFAULT_PORTS } from './http-grammar.ts'

/** Where a request goes: the target with its Host field. */
export interface Http1Destination extends Authority {
  /** The target's path without its query; `*` of the asterisk-form, empty of the authority-form. */
  readonly path: string
}

const ABSOLUTE = /^([a-z][a-z0-9+.-]*):\/\/([^/?]*)([^?]*)/i

/**
 * Reads one of the four forms of RFC 9112 §3.2. Where the target itself names a host, a server must use that and ignore Host (§3.2.2);
 * not every server does, so a Host that says otherwise is an error. A string: why it is malformed.
 *
 * @param host the value of the one Host field; undefined: there is none
 */
export function readDestination(method: string, target: string, host: string | undefined): Http1Destination | string {
  const named = host === undefined ? undefined : parseAuthority(host)
  if (host !== undefined && named === undefined) return 'Host is no host'
  if (method === 'CONNECT') return connectDestination(target, named)
  if (target.startsWith('/') || (target === '*' && method === 'OPTIONS')) {
    return { ...(named ?? NO_HOST), path: target.split('?', 1)[0]! }
  }
  return absoluteDestination(target, named)
}

const NO_HOST: Authority = { host: undefined, address: undefined, port: undefined }

function connectDestination(target: string, named: Authority | undefined): Http1Destination | string {
  const to = parseAuthority(target)
  // RFC 9110 §9.3.6: an empty or missing port is to be rejected
  if (to === undefined || to.port === undefined || isEmpty(to)) return 'target of CONNECT is no host with a port'
  // that it lacks the port is forgiven: nothing else can be meant
  if (named !== undefined && !sameAuthority(to, named, to.port)) return 'target and Host differ'
  return { ...to, path: '' }
}

function absoluteDestination(target: string, named: Authority | undefined): Http1Destination | string {
  const parts = ABSOLUTE.exec(target)
  if (parts === null) return 'target has none of the four forms'
  const [, scheme = '', authority = '', path = ''] = parts
  const to = parseAuthority(authority)
  if (to === undefined || isEmpty(to)) return 'target names no host' // RFC 9110 §4.2.1, §4.2.4
  if (named !== undefined && !sameAuthority(to, named, DEFAULT_PORTS.get(scheme.toLowerCase()))) {
    return 'target and Host differ'
  }
  return { ...to, path: path === '' ? '/' : path }
}

function isEmpty(authority: Authority): boolean {
  return authority.host === undefined && authority.address === undefined
}
