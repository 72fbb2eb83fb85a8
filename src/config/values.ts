import {
  type Endpoint,
  type Family,
  familyOf,
  isNeverForeign,
  parseAddress,
  parseEndpoint,
  parsePort,
} from '../net/address.ts'
import { ALL_PORTS, type PortRange, parsePortRange } from '../net/ports.ts'
import { networkOf, type Prefix, parsePrefix } from '../net/prefix.ts'
import { LONGEST_DURATION, parseDuration } from './duration.ts'
import { nearest } from './nearest.ts'
import type { Intercept, OnDown, Source } from './types.ts'

/** One kind of value that an operator writes, in a file or behind a flag. */
export interface ValueKind<T> {
  /** What is expected, for `expected …, found …`. */
  readonly expected: string
  /** The value, or undefined when `text` is not of this kind. */
  parse(text: string): T | undefined
  /** What may have been meant by a `text` that does not parse. */
  suggest?(text: string): string | undefined
  /** What is particular about a `text` that does not parse. */
  hint?(text: string): string | undefined
}

/** Where a listener listens: an endpoint, or a port on the addresses that suit the way of interception. */
export type ListenValue = Endpoint | { readonly port: number }

/** `to`: port 0 keeps the original one. */
export interface Target {
  readonly host: string
  readonly port: number
}

function oneOf<T extends string>(words: readonly T[]): ValueKind<T> {
  return {
    expected: words.length === 1 ? words[0]! : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`,
    parse: (text) => words.find((word) => word === text),
    suggest: (text) => nearest(text, words),
  }
}

export const INTERCEPT: ValueKind<Intercept> = oneOf(['tproxy', 'none'])
export const ON_DOWN: ValueKind<OnDown> = oneOf(['open', 'closed'])

export const FAMILY: ValueKind<readonly Family[]> = {
  expected: '4, 6 or both',
  parse: (text) => ({ 4: [4 as const], 6: [6 as const], both: [4 as const, 6 as const] })[text],
}

export const SOURCE: ValueKind<Source> = {
  expected: 'proxy, client, client-port or an address of this or another host',
  parse: (text) => {
    if (text === 'proxy' || text === 'client' || text === 'client-port') return text
    const address = parseAddress(text)
    return address === undefined || isNeverForeign(address) ? undefined : { address }
  },
  hint: (text) => (parseAddress(text) === undefined ? undefined : 'no server can answer to that address'),
  suggest: (text) => nearest(text, ['proxy', 'client', 'client-port']),
}

export const PORT: ValueKind<number> = {
  expected: 'a port from 1 to 65535',
  parse: (text) => parsePort(text),
}

/** `80`, `8000-8100` or `all`. */
export const PORTS: ValueKind<readonly PortRange[]> = {
  expected: 'a port from 1 to 65535, a range such as 8000-8100, or all',
  parse: (text) => {
    if (text === 'all') return ALL_PORTS
    const range = parsePortRange(text)
    return range && [range]
  },
}

export const PREFIX: ValueKind<Prefix> = {
  expected: 'an address or a prefix without host bits, such as 10.0.3.0/24 or fd00::/8',
  parse: parsePrefix,
  suggest: (text) => {
    const [address = '', length = ''] = text.split('/')
    const parsed = parseAddress(address)
    if (parsed === undefined || !/^\d{1,3}$/.test(length)) return undefined
    return Number(length) <= (familyOf(parsed) === 4 ? 32 : 128)
      ? `${networkOf(parsed, Number(length))}/${length}`
      : undefined
  },
}

/** dev_valid_name() of the kernel (net/core/dev.c), less what ends a string of nft's; with `*` at the end nft's pattern. */
export const INTERFACE: ValueKind<string> = {
  expected: 'the name of a network interface other than lo, of at most 15 characters, or a pattern such as ppp*',
  parse: (text) => {
    const isName = text.length <= 15 && /^[^\s/:"\\*\p{C}]+\*?$/u.test(text) && !RESERVED_NAMES.has(text)
    return isName ? text : undefined
  },
}

const RESERVED_NAMES = new Set(['lo', '.', '..'])

export const LISTEN: ValueKind<ListenValue> = {
  expected: 'an address and port such as 127.0.0.1:50080 or [::1]:50080, or a port from 1 to 65535',
  parse: (text) => {
    const port = parsePort(text)
    if (port !== undefined) return { port }
    const endpoint = parseEndpoint(text)
    return endpoint !== undefined && endpoint.port > 0 ? endpoint : undefined
  },
  hint: hintBrackets,
}

export const TARGET: ValueKind<Target> = {
  expected: 'host:port, [address]:port, or a host alone to keep the original port',
  parse: (text) => {
    const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text)
    if (match === null) return undefined
    const host = match[1] === undefined ? parseHost(match[2]!) : parseAddress(match[1])
    const port = match[3] === undefined ? 0 : parsePort(match[3])
    return host === undefined || port === undefined ? undefined : { host, port }
  },
  hint: hintBrackets,
}

/** `fd00::2:443` is an address as well: what its end was meant to be is not for us to guess. */
function hintBrackets(text: string): string | undefined {
  return parseAddress(text)?.includes(':') ? 'an IPv6 address needs brackets, as in [fd00::2]:443' : undefined
}

export const HOST: ValueKind<string> = {
  expected: 'an address or a host name',
  parse: (text) => parseHost(/^\[(.*:.*)\]$/.exec(text)?.[1] ?? text),
  hint: (text) => (/^[^:]+:\d+$|^\[.*\]:\d+$/.test(text) ? 'write the port as its own word' : undefined),
}

export const DURATION: ValueKind<number> = {
  expected: 'a duration with its unit, such as 500ms, 10s, 5m or 1h, or off',
  parse: parseDuration,
  suggest: (text) => (/^[1-9]\d{0,6}$/.test(text) ? `${text}${Number(text) < 1000 ? 's' : 'ms'}` : undefined),
  hint: (text) => (/^\d+(\.\d+)?\s?(ms|s|m|h|d)$/.test(text) ? `the longest is ${LONGEST_DURATION}` : undefined),
}

/** An address literal in canonical form, or a name by RFC 1123 §2.1 (underscores are seen in practice). */
function parseHost(text: string): string | undefined {
  const address = parseAddress(text)
  if (address !== undefined) return address
  if (text.length > 253 || /^[\d.]+$/.test(text)) return undefined // digits and dots only: a mistyped address
  const labels = text.replace(/\.$/, '').split('.')
  return labels.every((label) => /^(?!-)[\w-]{1,63}(?<!-)$/.test(label)) ? text.toLowerCase() : undefined
}
