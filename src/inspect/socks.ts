import { addressOfBytes } from '../net/address.ts'
import { canonicalHost } from '../net/host-name.ts'
import { latin1 } from './latin1.ts'
import { malformed, match, more, NO, type Probed } from './probe.ts'

/** What a SOCKS client wants, as far as its first bytes say it. */
export type SocksFinding = Socks4Request | Socks5Greeting

export interface SocksDestination {
  readonly command: SocksCommand
  /** Canonical; undefined when an address is named. */
  readonly host: string | undefined
  readonly address: string | undefined
  readonly port: number
}

export type SocksCommand = (typeof COMMANDS)[number]
const COMMANDS = ['connect', 'bind', 'associate'] as const // 1, 2 and 3; SOCKS4 has no third

export interface Socks4Request extends SocksDestination {
  readonly protocol: 'socks'
  readonly version: 4
  readonly user: string
}

/** A client of SOCKS5 says where it wants to go when the server has chosen a method: `probeSocks5Request`. */
export interface Socks5Greeting {
  readonly protocol: 'socks'
  readonly version: 5
  /** Numbers of RFC 1928 §3. */
  readonly methods: readonly number[]
  /** Bytes of the greeting: a client that waits for nobody has sent its request behind them. */
  readonly length: number
}

const MAX_TEXT_BYTES = 255 // user and host; SOCKS4 itself has no bound
const REQUEST4_BYTES = 8

/** SOCKS4 and 4a: a whole request; SOCKS5 (RFC 1928 §3): the greeting. */
export function probeSocks(bytes: Uint8Array): Probed<SocksFinding> {
  if (bytes.length === 0) return more(2)
  if (bytes[0] === 4) return probe4(bytes)
  return bytes[0] === 5 ? probe5(bytes) : NO
}

/** Version, command, port, address, user, NUL; and when the address is 0.0.0.x, x ≠ 0, a host and NUL (SOCKS 4A). */
function probe4(bytes: Uint8Array): Probed<Socks4Request> {
  if (bytes.length < 2) return more(REQUEST4_BYTES + 1)
  const command = bytes[1] === 1 || bytes[1] === 2 ? COMMANDS[bytes[1] - 1] : undefined
  if (command === undefined) return NO
  if (bytes.length < REQUEST4_BYTES) return more(REQUEST4_BYTES + 1)
  const user = textAt(bytes, REQUEST4_BYTES)
  if (typeof user !== 'string') return user
  const port = (bytes[2]! << 8) | bytes[3]!
  const isNamed = bytes[4] === 0 && bytes[5] === 0 && bytes[6] === 0 && bytes[7] !== 0
  const request = { protocol: 'socks', version: 4, command, port, user } as const
  if (!isNamed) return match({ ...request, host: undefined, address: addressOfBytes(bytes.subarray(4, 8)) })
  const text = textAt(bytes, REQUEST4_BYTES + user.length + 1)
  if (typeof text !== 'string') return text
  const host = canonicalHost(text)
  return host === undefined ? malformed('host is none') : match({ ...request, host, address: undefined })
}

/** Text up to NUL. */
function textAt(bytes: Uint8Array, from: number): string | Probed<never> {
  const shown = bytes.subarray(0, from + MAX_TEXT_BYTES + 1)
  const end = shown.indexOf(0, from)
  if (end >= 0) return latin1(bytes, from, end)
  return shown.length > from + MAX_TEXT_BYTES
    ? malformed(`text is longer than ${MAX_TEXT_BYTES} bytes`)
    : more(bytes.length + 1)
}

/** No method at all is no SOCKS: DCE/RPC begins with 5, 0. */
function probe5(bytes: Uint8Array): Probed<Socks5Greeting> {
  if (bytes.length < 2) return more(3)
  const count = bytes[1]!
  if (count === 0) return NO
  const length = 2 + count
  if (bytes.length < length) return more(length)
  return match({ protocol: 'socks', version: 5, methods: [...bytes.subarray(2, length)], length })
}

/** The request that follows a greeting and what its method needs (RFC 1928 §4). Any command but the three is malformed. */
export function probeSocks5Request(bytes: Uint8Array): Probed<SocksDestination> {
  if (bytes.length > 0 && bytes[0] !== 5) return NO
  const command = COMMANDS[(bytes[1] ?? 1) - 1]
  if (command === undefined || (bytes[2] ?? 0) !== 0) return malformed('command is none')
  if (bytes.length < 5) return more(Math.max(7, bytes.length + 1))
  const type = bytes[3]
  const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? bytes[4]! : 0
  if (length === 0) return malformed('address is of no type') // or a name without a byte
  const from = type === 3 ? 5 : 4
  const end = from + length
  if (bytes.length < end + 2) return more(end + 2)
  const port = (bytes[end]! << 8) | bytes[end + 1]!
  if (type !== 3) {
    return match({ command, host: undefined, address: addressOfBytes(bytes.subarray(from, end)), port })
  }
  const host = canonicalHost(latin1(bytes, from, end))
  return host === undefined ? malformed('host is none') : match({ command, host, address: undefined, port })
}
