import { CryptoStream, MAX_CRYPTO_BYTES } from './quic-crypto-stream.ts'
import { type InitialFrames, readInitialFrames } from './quic-frames.ts'
import type { LongHeader } from './quic-header.ts'
import { clientInitialKeys, type InitialKeys } from './quic-keys.ts'
import { type OpenedPacket, openInitial } from './quic-open.ts'
import type { QuicVersion } from './quic-version.ts'
import { readClientHello, type TlsHello } from './tls-client-hello.ts'

const MESSAGE_HEADER_BYTES = 4 // RFC 8446 §4
const MAX_HELLOS = 2 // the second answers a HelloRetryRequest, of which there is one (RFC 8446 §4.1.4)

/** The Initial packets that a client sends with one first Destination Connection ID, and the hello in them. */
export class QuicConnection implements InitialFrames {
  readonly version: QuicVersion
  /** What its client asks for; undefined until the hello is whole. */
  hello: TlsHello | undefined
  /** Without a hello: how many bytes of CRYPTO data it takes at least to say more. */
  wanted = MESSAGE_HEADER_BYTES
  isClosed = false
  readonly #dcid: Uint8Array
  readonly #keys: InitialKeys
  #otherVersion: InitialKeys | undefined
  #largest = -1
  readonly #stream = new CryptoStream()
  #helloAt = 0
  #hellos = 0

  /** Copies `dcid`. */
  constructor(version: QuicVersion, dcid: Uint8Array) {
    this.version = version
    this.#dcid = Uint8Array.from(dcid) // slice() of a Buffer would not copy
    this.#keys = clientInitialKeys(version, this.#dcid)
  }

  /** Has the packet the version and connection id that the keys are from? */
  isNamed(datagram: Uint8Array, header: LongHeader): boolean {
    return header.version === this.version && this.#isFirstId(datagram, header)
  }

  /** An Initial packet of this connection; undefined: it is not, or was damaged. */
  open(datagram: Uint8Array, header: LongHeader): OpenedPacket | undefined {
    const keys = this.#keysFor(datagram, header)
    const packet = keys === undefined ? undefined : openInitial(datagram, header, keys, this.#largest)
    if (packet !== undefined) this.#largest = Math.max(this.#largest, packet.number)
    return packet
  }

  /** Returns why the packet, or the hello that it completes, is malformed. */
  read(packet: OpenedPacket): string | undefined {
    if (packet.reserved !== 0) return 'reserved bits of the header are set' // RFC 9000 §17.2
    return readInitialFrames(packet.payload, this) ?? this.#readHellos()
  }

  crypto(offset: number, data: Uint8Array): string | undefined {
    return this.#stream.add(offset, data)
  }

  closed(): void {
    this.isClosed = true
  }

  /**
   * When the server has read the hello, both may go on in another version, with keys from the same id (RFC 9368 §2.3, RFC 9369 §4.1);
   * by then the client sends to an id that the server chose. With the first id it begins anew, after a Version Negotiation.
   */
  #keysFor(datagram: Uint8Array, header: LongHeader): InitialKeys | undefined {
    if (header.version === this.version) return this.#keys
    if (this.hello === undefined || this.#isFirstId(datagram, header)) return undefined
    this.#otherVersion ??= clientInitialKeys(header.version, this.#dcid)
    return this.#otherVersion
  }

  #isFirstId(datagram: Uint8Array, header: LongHeader): boolean {
    return Buffer.compare(this.#dcid, datagram.subarray(header.dcidAt, header.dcidEnd)) === 0
  }

  #readHellos(): string | undefined {
    for (;;) {
      const rest = this.#stream.whole.subarray(this.#helloAt)
      if (rest.length === 0) return undefined
      if (this.#hellos === MAX_HELLOS) return `more than ${MAX_HELLOS} ClientHellos`
      const probed = readClientHello(rest, 'quic')
      if (probed.kind === 'no') return 'CRYPTO data that is no ClientHello'
      if (probed.kind === 'malformed') return probed.why
      if (probed.kind === 'more') {
        this.wanted = this.#helloAt + probed.atLeast
        return this.wanted > MAX_CRYPTO_BYTES ? `a ClientHello up to byte ${this.wanted}` : undefined
      }
      if (this.hello !== undefined && !asksForTheSame(this.hello, probed.finding))
        return 'a second ClientHello that asks for something else'
      this.hello ??= probed.finding
      this.#hellos++
      this.#helloAt += MESSAGE_HEADER_BYTES + rest[1]! * 65_536 + rest[2]! * 256 + rest[3]!
    }
  }
}

/** RFC 8446 §4.1.2 lists what may change in the second hello; servers differ in which of the two they go by. */
function asksForTheSame(one: TlsHello, other: TlsHello): boolean {
  return (
    one.serverName === other.serverName &&
    one.addressAsName === other.addressAsName &&
    one.alpn.length === other.alpn.length &&
    one.alpn.every((name, i) => name === other.alpn[i])
  )
}
