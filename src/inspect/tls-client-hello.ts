import { isIP } from 'node:net'
import { canonicalHost } from '../net/host-name.ts'
import { ja4 } from './ja4.ts'
import { latin1 } from './latin1.ts'
import { malformed, match, more, type Probed } from './probe.ts'
import { clientHelloOf, MAX_HELLO_BYTES } from './tls-record.ts'

/** What a TLS client says in the clear before its connection is encrypted. Keeps none of the bytes that it was read from. */
export interface TlsHello {
  readonly protocol: 'tls'
  /** The server that the client asks for (SNI, RFC 6066 §3), canonical. */
  readonly serverName: string | undefined
  /** An address where only a name may stand (RFC 6066 §3). It names no server, and clients that do not know better send it. */
  readonly addressAsName: string | undefined
  /** Protocols that the client would speak within (RFC 7301), first choice first; a character for each byte. */
  readonly alpn: readonly string[]
  /** Offered, highest first: 0x0304 is TLS 1.3. Of a client that sends no list, the one version that it names as its highest. */
  readonly versions: readonly number[]
  /**
   * The extension of Encrypted Client Hello is there (RFC 9849), so `serverName` may be a front. Browsers also send it with random
   * contents (§6.2), and nobody but the server can tell the two apart.
   */
  readonly encryptedHello: boolean
  /** Fingerprint of the client's software; made when it is asked for, which takes longer than all else. */
  readonly ja4: string
}

const CLIENT_HELLO = 1
const HEADER_BYTES = 4
const RANDOM_BYTES = 32
const MAX_SESSION_ID_BYTES = 32
const MAX_NAME_BYTES = 254 // 253 and a dot: the longest that canonicalHost takes
const MAX_EXTENSIONS = 128 // about 70 are assigned, and each may occur once
const MAX_PROTOCOLS = 64
const MAX_VALUES = 512 // about 350 cipher suites are assigned; 64 KiB of them would take the fingerprint milliseconds
const [SERVER_NAME, SIGNATURE_ALGORITHMS, ALPN, SUPPORTED_VERSIONS, ENCRYPTED_HELLO] = [0, 13, 16, 43, 0xfe0d]

/** Is this the beginning of a TLS connection? Looks at MAX_TLS_BYTES at the most, and at nothing after the hello's last record. */
export function probeTls(bytes: Uint8Array): Probed<TlsHello> {
  const message = clientHelloOf(bytes)
  return message.kind === 'match' ? readClientHello(message.finding, 'tcp') : message
}

/**
 * A ClientHello without record layer, as QUIC carries it, beginning with the message's header (RFC 8446 §4, §4.1.2). `handshake` may
 * end within it, which gives `more`; what follows it is not looked at.
 */
export function readClientHello(handshake: Uint8Array, transport: 'tcp' | 'quic'): Probed<TlsHello> {
  if (handshake.length === 0) return more(1)
  if (handshake[0] !== CLIENT_HELLO) return malformed(`handshake message ${handshake[0]} before the ClientHello`)
  if (handshake.length < HEADER_BYTES) return more(HEADER_BYTES)
  const whole = HEADER_BYTES + handshake[1]! * 65_536 + uint16(handshake, 2)
  if (whole > MAX_HELLO_BYTES) return malformed(`a ClientHello of ${whole} bytes`)
  if (handshake.length < whole) return more(whole)
  const draft = emptyDraft()
  const why = readBody(handshake, whole, draft)
  return why === undefined ? match(new Hello(draft, transport)) : malformed(why)
}

/** What was read so far. */
interface Draft {
  serverName: string | undefined
  addressAsName: string | undefined
  encryptedHello: boolean
  readonly alpn: string[]
  readonly versions: number[]
  readonly ciphers: number[]
  readonly extensions: number[]
  readonly signatureAlgorithms: number[]
}

function emptyDraft(): Draft {
  return {
    serverName: undefined,
    addressAsName: undefined,
    encryptedHello: false,
    alpn: [],
    versions: [],
    ciphers: [],
    extensions: [],
    signatureAlgorithms: [],
  }
}

class Hello implements TlsHello {
  readonly protocol = 'tls'
  readonly serverName: string | undefined
  readonly addressAsName: string | undefined
  readonly alpn: readonly string[]
  readonly versions: readonly number[]
  readonly encryptedHello: boolean
  readonly #draft: Draft
  readonly #transport: 'tcp' | 'quic'

  constructor(draft: Draft, transport: 'tcp' | 'quic') {
    this.serverName = draft.serverName
    this.addressAsName = draft.addressAsName
    this.alpn = draft.alpn
    this.versions = draft.versions
    this.encryptedHello = draft.encryptedHello
    this.#draft = draft
    this.#transport = transport
  }

  get ja4(): string {
    const { versions, ciphers, extensions, alpn, signatureAlgorithms } = this.#draft
    const [transport, version, firstAlpn] = [this.#transport, versions[0], alpn[0]]
    return ja4({ transport, version, ciphers, extensions, firstAlpn, signatureAlgorithms })
  }
}

/** Fills the draft. Returns why the hello is malformed. */
function readBody(bytes: Uint8Array, end: number, draft: Draft): string | undefined {
  let at = HEADER_BYTES + 2 + RANDOM_BYTES
  if (at >= end) return 'a ClientHello that ends early'
  const sessionIdBytes = bytes[at]!
  if (sessionIdBytes > MAX_SESSION_ID_BYTES) return `a session id of ${sessionIdBytes} bytes`
  at += 1 + sessionIdBytes
  if (at + 2 > end) return 'a ClientHello that ends early'
  const suitesEnd = at + 2 + uint16(bytes, at)
  if (suitesEnd >= end || !readValues(bytes, at + 2, suitesEnd, draft.ciphers)) return 'cipher suites of a wrong length'
  if (suitesEnd - at > 2 + 2 * MAX_VALUES) return `more than ${MAX_VALUES} cipher suites`
  const methods = bytes[suitesEnd]!
  at = suitesEnd + 1 + methods
  if (methods === 0 || at > end) return 'compression methods of a wrong length'
  const why = at === end ? undefined : readExtensions(bytes, at, end, draft)
  if (why !== undefined) return why
  if (draft.extensions.includes(SUPPORTED_VERSIONS)) sortDescending(draft.versions)
  else draft.versions.push(uint16(bytes, HEADER_BYTES))
  return undefined
}

function readExtensions(bytes: Uint8Array, from: number, end: number, draft: Draft): string | undefined {
  if (from + 2 > end || from + 2 + uint16(bytes, from) !== end) return 'extensions of a wrong length'
  const seen: number[] = [] // with GREASE
  for (let at = from + 2; at < end; ) {
    if (at + 4 > end) return 'extensions of a wrong length'
    const type = uint16(bytes, at)
    const dataAt = at + 4
    at = dataAt + uint16(bytes, at + 2)
    if (at > end) return `extension ${type} of a wrong length`
    if (seen.includes(type)) return `extension ${type} twice` // RFC 8446 §4.2
    if (seen.length === MAX_EXTENSIONS) return `more than ${MAX_EXTENSIONS} extensions`
    seen.push(type)
    if (isGrease(type)) continue
    draft.extensions.push(type)
    const why = readExtension(type, bytes, dataAt, at, draft)
    if (why !== undefined) return why
  }
  return undefined
}

function readExtension(type: number, bytes: Uint8Array, at: number, end: number, draft: Draft): string | undefined {
  switch (type) {
    case SERVER_NAME:
      return readServerName(bytes, at, end, draft)
    case ALPN:
      return readProtocols(bytes, at, end, draft.alpn)
    case SUPPORTED_VERSIONS:
      if (at < end && at + 1 + bytes[at]! === end && readValues(bytes, at + 1, end, draft.versions)) return undefined
      return 'versions of a wrong length'
    case SIGNATURE_ALGORITHMS:
      if (end - at > 2 + 2 * MAX_VALUES) return `more than ${MAX_VALUES} signature algorithms`
      if (isVector(bytes, at, end) && readValues(bytes, at + 2, end, draft.signatureAlgorithms)) return undefined
      return 'signature algorithms of a wrong length'
    case ENCRYPTED_HELLO:
      draft.encryptedHello = true
  }
  return undefined
}

/** One entry of type host_name: another type has never been defined, and a second entry of this one is forbidden (RFC 6066 §3). */
function readServerName(bytes: Uint8Array, at: number, end: number, draft: Draft): string | undefined {
  if (!isVector(bytes, at, end)) return 'server names of a wrong length'
  if (at + 2 === end) return 'an empty list of server names'
  if (bytes[at + 2] !== 0) return `a server name of type ${bytes[at + 2]}`
  const nameAt = at + 5
  if (nameAt > end) return 'server names of a wrong length'
  const nameEnd = nameAt + uint16(bytes, at + 3)
  if (nameEnd > end) return 'server names of a wrong length'
  if (nameEnd < end) return 'two server names'
  if (nameEnd - nameAt > MAX_NAME_BYTES) return 'a server name that is no host name'
  const text = latin1(bytes, nameAt, nameEnd)
  draft.serverName = canonicalHost(text)
  if (draft.serverName !== undefined) return undefined
  if (isIP(text) === 0 || text.includes('%')) return 'a server name that is no host name'
  draft.addressAsName = text
  return undefined
}

/** GREASE (two bytes like those of a version, RFC 8701 §2) is left out. */
function readProtocols(bytes: Uint8Array, from: number, end: number, alpn: string[]): string | undefined {
  if (!isVector(bytes, from, end) || from + 2 === end) return 'protocols of a wrong length'
  for (let at = from + 2; at < end; ) {
    const next = at + 1 + bytes[at]!
    if (next === at + 1) return 'an empty protocol'
    if (next > end) return 'protocols of a wrong length'
    if (alpn.length === MAX_PROTOCOLS) return `more than ${MAX_PROTOCOLS} protocols`
    if (next - at !== 3 || !isGrease(uint16(bytes, at + 1))) alpn.push(latin1(bytes, at + 1, next))
    at = next
  }
  return undefined
}

/** Does a vector with two length bytes begin at `at` and end at `end`? */
function isVector(bytes: Uint8Array, at: number, end: number): boolean {
  return at + 2 <= end && at + 2 + uint16(bytes, at) === end
}

/** In place. Nearly every client has them in this order. */
function sortDescending(values: number[]): void {
  if (values.some((value, i) => i > 0 && value > values[i - 1]!)) values.sort((a, b) => b - a)
}

/** Two bytes each, at least one; GREASE is left out. */
function readValues(bytes: Uint8Array, from: number, end: number, values: number[]): boolean {
  if (from >= end || (end - from) % 2 !== 0) return false
  for (let at = from; at < end; at += 2) {
    const value = uint16(bytes, at)
    if (!isGrease(value)) values.push(value)
  }
  return true
}

/** RFC 8701 §2: 0x0a0a, 0x1a1a … 0xfafa. */
function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff)
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}
