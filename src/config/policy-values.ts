import { type Endpoint, parseAddress, parseEndpoint, parsePort } from '../net/address.ts'
import { canonicalHost } from '../net/host-name.ts'
import { parseNameEntry } from '../net/name-entry.ts'
import { DAYS } from './moment.ts'
import { nearest } from './nearest.ts'
import type {
  Balance,
  Decision,
  DetectedProtocol,
  HostCheckMode,
  Onward,
  RateLimit,
  Rejection,
  TimeWindow,
} from './policy-types.ts'
import { oneOf, type ValueKind } from './values.ts'

export const DETECTED: ValueKind<DetectedProtocol> = oneOf([
  'tls',
  'http1',
  'http2',
  'ssh',
  'socks',
  'quic',
  'dns',
  'unknown',
])
/** What a rule makes of a flow. */
export type PolicyThen = Decision['kind']
export const POLICY_THENS: readonly PolicyThen[] = ['forward', 'via', 'handle', 'reject', 'bypass']
export const POLICY_THEN: ValueKind<PolicyThen> = {
  ...oneOf(POLICY_THENS),
  suggest: (text) => MEANT[text] ?? nearest(text, POLICY_THENS),
}

/** Words of other firewalls and proxies. */
const MEANT: Readonly<Record<string, PolicyThen | undefined>> = {
  ...{ allow: 'forward', accept: 'forward', pass: 'forward', permit: 'forward' },
  ...{ deny: 'reject', block: 'reject', drop: 'reject', refuse: 'reject', reset: 'reject' },
}

export const REJECTION: ValueKind<Rejection> = oneOf([
  'reset',
  'drop',
  'forbidden',
  'unreachable',
  'refused',
  'nxdomain',
])
export const HOST_CHECK: ValueKind<HostCheckMode> = oneOf(['off', 'log', 'enforce'])

/** In the form in which it was written. */
export const NAME_ENTRY: ValueKind<string> = {
  expected:
    'a name such as www.example.org, .example.org for it and all below it, or a pattern such as ads*.example.org',
  parse: (text) => (parseNameEntry(text) === undefined ? undefined : text),
  hint: (text) => (parseAddress(text) === undefined ? undefined : 'addresses belong to "destinations"'),
}

/** `10.0.4.9:443`, `[fd00::9]:443`, or an address alone to keep the port. */
export const SERVER: ValueKind<Endpoint> = {
  expected: 'address:port, [address]:port, or an address alone to keep the original port',
  parse: (text) => {
    const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text)
    const address = parseAddress(match?.[1] ?? match?.[2] ?? text)
    const port = match?.[3] === undefined ? 0 : parsePort(match[3])
    return address === undefined || port === undefined ? undefined : { address, port }
  },
}

export const CLIENT_ADDRESS: ValueKind<string> = {
  expected: 'an IPv4 or IPv6 address',
  parse: parseAddress,
}

/** In its canonical form. */
export const HOST_NAME: ValueKind<string> = {
  expected: 'a host name such as www.example.org',
  parse: canonicalHost,
}

/** What a client dials; port 0 where none was given. */
export const FLOW_DESTINATION: ValueKind<Endpoint> = {
  expected: 'address:port, [address]:port, or an address alone',
  parse: SERVER.parse,
}

/** Where a rule sends a flow: a server, or `pool:web`. */
export const POLICY_TARGET: ValueKind<NonNullable<Onward['to']>> = {
  expected: `${SERVER.expected}; or pool:NAME`,
  parse: (text) => {
    const pool = /^pool:([A-Za-z0-9][\w.-]{0,31})$/.exec(text)?.[1]
    return pool === undefined ? SERVER.parse(text) : { pool }
  },
}

export const BALANCE: ValueKind<Balance> = oneOf(['round-robin', 'least-flows', 'client-hash'])
export const PER: ValueKind<RateLimit['per']> = oneOf(['client', 'rule'])

/** Lower case, with colons. */
export const MAC: ValueKind<string> = {
  expected: 'a MAC address such as 02:00:00:00:00:01',
  parse: (text) => {
    const isMac = /^[\da-f]{2}([:-])[\da-f]{2}(?:\1[\da-f]{2}){4}$/i.test(text)
    return isMac ? text.toLowerCase().replaceAll('-', ':') : undefined
  },
}

const RATE_UNITS = { s: 1_000, m: 60_000, h: 3_600_000 } as const

/** `10/s`, `600/m`, `5000/h`: milliseconds for each. */
export const RATE: ValueKind<number> = {
  expected: 'a number for a time, such as 10/s, 600/m or 5000/h',
  parse: (text) => {
    const [, count, unit] = /^([1-9]\d{0,6})\/([smh])$/.exec(text) ?? []
    return count === undefined ? undefined : RATE_UNITS[unit as keyof typeof RATE_UNITS] / Number(count)
  },
  suggest: (text) => (/^[1-9]\d{0,6}$/.test(text) ? `${text}/s` : undefined),
}

export const PROXY_VERSION: ValueKind<1 | 2> = {
  expected: 'v1 or v2',
  parse: (text) => ({ v1: 1 as const, v2: 2 as const })[text],
}

/** Where a SOCKS5 or HTTP proxy listens. */
export const PROXY_ENDPOINT: ValueKind<Endpoint> = {
  expected: 'address:port or [address]:port of a proxy',
  parse: (text) => {
    const endpoint = parseEndpoint(text)
    return endpoint === undefined || endpoint.port === 0 ? undefined : endpoint
  },
  hint: (text) => (/[a-z]/i.test(text) && !text.includes('::') ? 'a name would be looked up for each flow' : undefined),
}

const U32_MAX = 0xffff_ffff

export const MARK: ValueKind<number> = {
  expected: 'a fwmark such as 0x100',
  parse: (text) => {
    const mark = /^(?:0x[\da-f]{1,8}|[1-9]\d{0,9})$/i.test(text) ? Number(text) : 0
    return mark > 0 && mark <= U32_MAX ? mark : undefined
  },
}

/** Names of RFC 2474 §4.2.2.2 (CS), RFC 2597 §6 (AF), RFC 3246 (EF), RFC 5865 (VOICE-ADMIT) and RFC 8622 (LE). */
const DSCP_NAMES: ReadonlyMap<string, number> = new Map([
  ['ef', 46],
  ['le', 1],
  ['va', 44],
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((one) => [`cs${one}`, one * 8] as const),
  ...[1, 2, 3, 4].flatMap((one) => [1, 2, 3].map((drop) => [`af${one}${drop}`, one * 8 + drop * 2] as const)),
])

export const DSCP: ValueKind<number> = {
  expected: 'a DSCP from 0 to 63, or its name such as ef, af41 or cs1',
  parse: (text) => {
    const value = /^\d{1,2}$/.test(text) ? Number(text) : DSCP_NAMES.get(text.toLowerCase())
    return value === undefined || value > 63 ? undefined : value
  },
  suggest: (text) => nearest(text, [...DSCP_NAMES.keys()]),
}

const MINUTES_PER_DAY = 1_440

/** `08:00-18:00`, `mon-fri`, `mon-fri 08:00-18:00`, `sat,sun 22:00-06:00`. */
export const TIMES: ValueKind<TimeWindow> = {
  expected: 'days, a time of day, or both, such as mon-fri 08:00-18:00',
  parse: (text) => {
    const [, dayText, from, to] = /^(?:([a-z,-]+))?(?:(?:^|\s+)(\d\d:\d\d)-(\d\d:\d\d))?$/.exec(text.trim()) ?? []
    const days = dayText === undefined ? [] : daysOf(dayText)
    const range = from === undefined ? [0, MINUTES_PER_DAY] : [minuteOf(from), minuteOf(to!)]
    if ((dayText ?? from) === undefined || days === undefined || range.includes(undefined)) return undefined
    return { text, days, from: range[0]!, to: range[1]! }
  },
  suggest: (text) => nearest(text, DAYS),
}

function daysOf(text: string): number[] | undefined {
  const days = text.split(',').map((part) => {
    const [first, last = first, ...rest] = part.split('-').map((name) => DAYS.indexOf(name))
    if (rest.length > 0 || first! < 0 || last! < 0) return undefined
    const count = ((last! - first! + 7) % 7) + 1
    return Array.from({ length: count }, (_, i) => (first! + i) % 7)
  })
  return days.includes(undefined) ? undefined : [...new Set(days.flatMap((part) => part!))].sort()
}

/** `24:00` is the end of the day. */
function minuteOf(text: string): number | undefined {
  const [hours, minutes] = text.split(':').map(Number) as [number, number]
  const minute = hours * 60 + minutes
  return minutes < 60 && minute <= MINUTES_PER_DAY ? minute : undefined
}
