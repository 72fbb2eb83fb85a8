import { type Family, familyOf, isNeverForeign, parseAddress, parseEndpoint, parsePort } from '../net/address.ts'
import { ALL_PORTS, type NumberRange, type PortRange, parsePortRange } from '../net/ports.ts'
import { networkOf, type Prefix, parsePrefix } from '../net/prefix.ts'
import { LONGEST_DURATION, parseDuration } from './duration.ts'
import { nearest } from './nearest.ts'
import type { BackendChoice, FwmarkMatch, Intercept, OnDown, Path, Protocol, Source, WorkerCount } from './types.ts'

/** One kind of value that an operator writes, in a file or behind a flag. */
export interface ValueKind<T> {
  /** What is expected, for `expected …, found …`. */
  readonly expected: string
  /** Where it is one of a few words: these, for editors. */
  readonly words?: readonly string[]
  /** The value, or undefined when `text` is not of this kind. */
  parse(text: string): T | undefined
  /** What may have been meant by a `text` that does not parse. */
  suggest?(text: string): string | undefined
  /** What is particular about a `text` that does not parse. */
  hint?(text: string): string | undefined
}

/** Where a listener listens: ports, at an address or at those that suit the way of interception. */
export interface ListenValue {
  readonly address?: string
  readonly ports: PortRange
}

const MAX_LISTEN_PORTS = 64 // each is a socket per family
const MAX_WORKERS = 256
const U32_MAX = 0xffff_ffff

/** `to`: port 0 keeps the original one. */
export interface Target {
  readonly host: string
  readonly port: number
}

export function oneOf<T extends string>(words: readonly T[]): ValueKind<T> {
  return {
    expected: words.length === 1 ? words[0]! : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`,
    words,
    parse: (text) => words.find((word) => word === text),
    suggest: (text) => nearest(text, words),
  }
}

export const INTERCEPT: ValueKind<Intercept> = oneOf(['tproxy', 'redirect', 'dnat', 'mark', 'none'])
export const PATH: ValueKind<Path> = oneOf(['forwarded', 'local', 'bridged'])
export const PROTOCOL: ValueKind<Protocol> = oneOf(['tcp', 'udp'])
export const BACKEND: ValueKind<BackendChoice> = oneOf(['auto', 'nft', 'iptables'])
export const FORWARD_SOURCE: ValueKind<'proxy' | 'client'> = oneOf(['client', 'proxy'])
export const ON_DOWN: ValueKind<OnDown> = oneOf(['open', 'closed'])

export const WORKERS: ValueKind<WorkerCount> = {
  expected: `a number of processes from 1 to ${MAX_WORKERS}, or auto: one for each core`,
  parse: (text) => {
    if (text === 'auto') return text
    const count = /^[1-9]\d{0,2}$/.test(text) ? Number(text) : Number.NaN
    return count <= MAX_WORKERS ? count : undefined
  },
  suggest: (text) => nearest(text, ['auto']),
}

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
  expected: 'an address and port such as 127.0.0.1:50080 or [::1]:50080, a port from 1 to 65535, or a range of ports',
  parse: (text) => {
    const range = parsePortRange(text)
    if (range !== undefined) return range.to - range.from < MAX_LISTEN_PORTS ? { ports: range } : undefined
    const endpoint = parseEndpoint(text)
    if (endpoint === undefined || endpoint.port === 0) return undefined
    return { address: endpoint.address, ports: { from: endpoint.port, to: endpoint.port } }
  },
  hint: (text) =>
    parsePortRange(text) === undefined ? hintBrackets(text) : `a range has at most ${MAX_LISTEN_PORTS} ports`,
}

/** `1000`, or `1000-1999`: user ids. */
export const UIDS: ValueKind<NumberRange> = {
  expected: 'a user id such as 1000, or a range such as 1000-1999',
  parse: (text) => {
    const [, first, last = first] = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(text) ?? []
    const range = { from: Number(first), to: Number(last) }
    return first !== undefined && range.from <= range.to && range.to < U32_MAX ? range : undefined
  },
}

/** A cgroup v2 path, as in /proc/PID/cgroup, with or without its leading slash. */
export const CGROUP: ValueKind<string> = {
  expected: 'the path of a cgroup below /sys/fs/cgroup, such as system.slice/nginx.service',
  parse: (text) => {
    const path = text.replace(/^\/+|\/+$/g, '')
    const isPath = path !== '' && path.length <= 255 && !/[\s"\p{C}]/u.test(path)
    return isPath && !path.split('/').some((name) => name === '' || name === '.' || name === '..') ? path : undefined
  },
}

/** `0x1`, or `0x1/0xff` with a mask; without one all 32 bits count. */
export const FWMARK: ValueKind<FwmarkMatch> = {
  expected: 'a fwmark such as 0x1, or one with its mask such as 0x1/0xff',
  parse: (text) => {
    const [, value, mask = '0xffffffff'] =
      /^(0x[\da-f]{1,8}|\d{1,10})(?:\/(0x[\da-f]{1,8}|\d{1,10}))?$/i.exec(text) ?? []
    const match = { value: Number(value), mask: Number(mask) }
    if (value === undefined || match.value > U32_MAX || match.mask > U32_MAX || match.mask === 0) return undefined
    return (match.value & ~match.mask) === 0 ? match : undefined
  },
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
