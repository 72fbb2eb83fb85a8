import { type Endpoint, parseAddress, parsePort } from '../net/address.ts'
import { canonicalHost } from '../net/host-name.ts'
import { parseNameEntry } from '../net/name-entry.ts'
import { nearest } from './nearest.ts'
import type { DetectedProtocol, Rejection, TimeWindow } from './policy-types.ts'
import { oneOf, type ValueKind } from './values.ts'

export const DETECTED: ValueKind<DetectedProtocol> = oneOf(['tls', 'http1', 'http2', 'ssh', 'socks', 'quic', 'unknown'])
/** What a rule makes of a flow. */
export type PolicyThen = 'forward' | 'reject' | 'bypass'
export const POLICY_THEN: ValueKind<PolicyThen> = oneOf(['forward', 'reject', 'bypass'])
export const REJECTION: ValueKind<Rejection> = oneOf(['reset', 'drop', 'forbidden'])

/** In the form in which it was written. */
export const NAME_ENTRY: ValueKind<string> = {
  expected:
    'a name such as www.example.org, .example.org for it and all below it, or a pattern such as ads*.example.org',
  parse: (text) => (parseNameEntry(text) === undefined ? undefined : text),
  hint: (text) => (parseAddress(text) === undefined ? undefined : 'addresses belong to "destinations"'),
}

/** Where a rule sends a flow: `10.0.4.9:443`, `[fd00::9]:443`, or an address alone to keep the port. */
export const POLICY_TARGET: ValueKind<Endpoint> = {
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
  parse: POLICY_TARGET.parse,
}

const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
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
