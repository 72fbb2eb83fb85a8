import { malformed, match, more, NO, type Probed } from './probe.ts'
import { QuicConnection } from './quic-connection.ts'
import { invariantVersion, type LongHeader, readLongHeader } from './quic-header.ts'
import type { OpenedPacket } from './quic-open.ts'
import { quicVersion } from './quic-version.ts'
import type { TlsHello } from './tls-client-hello.ts'

/** What the first packets of a QUIC connection say. */
export interface QuicFinding {
  readonly protocol: 'quic'
  /** 1, 0x6b3343cf (version 2), or one that nobody here can read: then `hello` is undefined. */
  readonly version: number
  readonly hello: TlsHello | undefined
  readonly serverName: string | undefined
  readonly alpn: readonly string[]
  /** Begins with `q`; computed when it is first read. Undefined without a hello. */
  readonly ja4: string | undefined
}

const MIN_DATAGRAM_BYTES = 1200 // RFC 9000 §14.1
const MIN_FIRST_DCID_BYTES = 8 // RFC 9000 §7.2
const MAX_PACKETS = 8 // of a datagram; Initial, 0-RTT and Handshake make three
/** Without a hello in so many datagrams there is none to come: browsers take two, and repeat them when they are lost. */
export const MAX_DATAGRAMS = 10
const MESSAGE_HEADER_BYTES = 4 // RFC 8446 §4

/**
 * Has this datagram an Initial packet of a version that we can open? By its headers alone: cheap, and no proof. A session that was
 * decided can begin another connection at any time, so this is worth asking of each datagram of a client.
 */
export function looksLikeQuicInitial(datagram: Uint8Array): boolean {
  let at = 0
  for (let packets = 0; packets < MAX_PACKETS; packets++) {
    const header = readLongHeader(datagram, at)
    if (header === undefined) return false
    if (header.type === 'initial') return true
    at = header.end
  }
  return false
}

/**
 * What a client says to its QUIC server, from its datagrams: one for each UDP session. It holds MAX_CRYPTO_BYTES at the most, keeps no
 * datagram, changes none, never throws, and knows neither socket nor clock.
 *
 * Answers are about the connection that the client began last. `more` counts bytes of CRYPTO data. `no`: nothing in this datagram is
 * QUIC; a later one can be. After a `match` later datagrams get the same, unless the client begins another connection (Retry, Version
 * Negotiation, or simply anew), which is read from its beginning and may ask for another name. `malformed` is for good.
 */
export class QuicHello {
  #connection: QuicConnection | undefined
  /** The last one that no packet was opened of: its keys are made once. */
  #tried: QuicConnection | undefined
  #answer: Probed<QuicFinding> = NO
  /** Datagrams that have led to nothing since the last hello. */
  #spent = 0

  /** The connection that answers are about: another object as soon as the client begins another. */
  get connection(): object | undefined {
    return this.#connection
  }

  /** `datagram`: all of it, and only what the client sent. It is not kept. */
  add(datagram: Uint8Array): Probed<QuicFinding> {
    if (this.#answer.kind === 'malformed') return this.#answer
    const readable = readLongHeader(datagram, 0) !== undefined
    const answer = readable ? this.#readPackets(datagram) : this.#otherwise(datagram)
    if (answer.kind === 'malformed') this.#connection = undefined
    this.#answer = answer
    return answer
  }

  #readPackets(datagram: Uint8Array): Probed<QuicFinding> {
    let first: LongHeader | undefined
    let isLocked = false
    let isEarly = false
    for (let at = 0, packets = 0; ; packets++) {
      const header = readLongHeader(datagram, at)
      if (header === undefined) break // padding, or a short header: the rest is one packet
      if (packets === MAX_PACKETS) return malformed(`more than ${MAX_PACKETS} packets in a datagram`)
      first ??= header
      const isOther = !sameDcid(datagram, first, header)
      if (header.type === 'initial') {
        if (isOther) return malformed('packets of two connections in a datagram') // RFC 9000 §12.2
        const why = this.#readInitial(datagram, header)
        if (why === LOCKED) isLocked = true
        else if (why !== undefined) return malformed(why)
      } else if (header.type === 'zeroRtt') isEarly = true
      at = header.end
    }
    return this.#conclude(isLocked, isEarly)
  }

  /** Returns why the packet is malformed, or LOCKED when no key opens it: its server cannot read it either. */
  #readInitial(datagram: Uint8Array, header: LongHeader): string | undefined {
    const current = this.#connection
    let packet = current?.open(datagram, header)
    if (packet === undefined) {
      if (current?.isNamed(datagram, header)) return LOCKED // by the same keys
      if (!this.#tried?.isNamed(datagram, header)) {
        this.#tried = new QuicConnection(header.version, datagram.subarray(header.dcidAt, header.dcidEnd))
      }
      packet = this.#tried!.open(datagram, header)
      if (packet === undefined) return LOCKED
      this.#connection = this.#tried
      this.#tried = undefined
      // After a Retry the server's own id comes back, of any length, with its token (RFC 9000 §17.2.5.2)
      const isRetried = current !== undefined && header.tokenBytes > 0
      if (header.dcidEnd - header.dcidAt < MIN_FIRST_DCID_BYTES && !isRetried) {
        return 'a first connection id of less than 8 bytes'
      }
    }
    return this.#readOpened(packet, datagram.length)
  }

  #readOpened(packet: OpenedPacket, size: number): string | undefined {
    const connection = this.#connection!
    const isNew = connection.hello === undefined
    if (isNew && size < MIN_DATAGRAM_BYTES) return `an Initial in a datagram of ${size} bytes`
    const why = connection.read(packet)
    if (why === undefined && isNew && connection.hello !== undefined) this.#spent = 0
    return why
  }

  #conclude(isLocked: boolean, isEarly: boolean): Probed<QuicFinding> {
    const connection = this.#connection
    const hello = connection?.hello
    const isOpen = hello === undefined && (connection !== undefined || isEarly)
    if ((isLocked || isOpen) && this.#isSpent()) return malformed(NO_HELLO)
    if (connection === undefined) return isEarly ? more(MESSAGE_HEADER_BYTES) : NO
    if (hello !== undefined) return this.#found(connection, hello)
    return connection.isClosed ? malformed('closed before its ClientHello') : more(connection.wanted)
  }

  /** The same answer while the connection is the same. */
  #found(connection: QuicConnection, hello: TlsHello): Probed<QuicFinding> {
    const answer = this.#answer
    return answer.kind === 'match' && answer.finding.hello === hello
      ? answer
      : match(findingOf(connection.version.id, hello))
  }

  /** A datagram that begins with no packet of a version that we know. */
  #otherwise(datagram: Uint8Array): Probed<QuicFinding> {
    if (this.#answer.kind === 'more' && this.#isSpent()) return malformed(NO_HELLO)
    if (this.#answer.kind !== 'no') return this.#answer
    const version = datagram.length < MIN_DATAGRAM_BYTES ? undefined : invariantVersion(datagram)
    return version === undefined || quicVersion(version) !== undefined ? NO : match(findingOf(version, undefined))
  }

  #isSpent(): boolean {
    return ++this.#spent > MAX_DATAGRAMS
  }
}

const LOCKED = 'no key opens it'
const NO_HELLO = `no ClientHello in ${MAX_DATAGRAMS} datagrams`

function findingOf(version: number, hello: TlsHello | undefined): QuicFinding {
  return {
    protocol: 'quic',
    version,
    hello,
    serverName: hello?.serverName,
    alpn: hello?.alpn ?? [],
    get ja4() {
      return hello?.ja4
    },
  }
}

function sameDcid(datagram: Uint8Array, one: LongHeader, other: LongHeader): boolean {
  const length = one.dcidEnd - one.dcidAt
  if (other.dcidEnd - other.dcidAt !== length) return false
  for (let i = 0; i < length; i++) if (datagram[one.dcidAt + i] !== datagram[other.dcidAt + i]) return false
  return true
}
