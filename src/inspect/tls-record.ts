import { malformed, match, more, NO, type Probed } from './probe.ts'

const HANDSHAKE = 22
const ALERT = 21
const CLIENT_HELLO = 1
const ALERT_BYTES = 2 // RFC 8446 §6
const MAX_MAJOR = 15 // of a record's version; DTLS has 254
const RECORD_HEADER_BYTES = 5 // type, version, length: RFC 8446 §5.1
const MESSAGE_HEADER_BYTES = 4 // type, length: RFC 8446 §4
const MAX_FRAGMENT_BYTES = 16_384 // RFC 8446 §5.1
const MAX_RECORDS = 64 // a client may send a record for every byte; those that split a hello to hide its name send a few
/** A ClientHello with its header. The largest in the wild are below 4 KiB; its lengths would allow for 131 KiB. */
export const MAX_HELLO_BYTES = 65_536
/** So many bytes of a stream are enough for every answer. */
export const MAX_TLS_BYTES = MAX_HELLO_BYTES + MAX_RECORDS * RECORD_HEADER_BYTES

/**
 * The ClientHello that a TCP stream begins with, with its message header and without the records that carry it (RFC 8446 §5.1). A
 * view of `bytes` when one record carries it, else a copy. What follows its last record is not looked at.
 */
export function clientHelloOf(bytes: Uint8Array): Probed<Uint8Array> {
  let at = 0 // where the record begins
  let have = 0 // bytes of the message in the records before
  let header = 0 // the message's header as far as it was read, a big-endian number
  for (let records = 1; ; records++) {
    const refused = at === 0 ? firstHeader(bytes) : nextHeader(bytes, at)
    if (refused !== undefined) return refused
    const fragmentAt = at + RECORD_HEADER_BYTES
    const length = lengthAt(bytes, at)
    const end = fragmentAt + length
    const headerEnd = fragmentAt + MESSAGE_HEADER_BYTES - have // of the message; not after `fragmentAt` when it was read before
    for (let next = fragmentAt; next < Math.min(headerEnd, end); next++) {
      if (next >= bytes.length) return more(next === fragmentAt && have === 0 ? next + 1 : Math.min(headerEnd, end))
      header = header * 256 + bytes[next]!
      if (have === 0 && next === fragmentAt && header !== CLIENT_HELLO) {
        return malformed(`handshake message ${header} before the ClientHello`)
      }
    }
    if (headerEnd <= end) {
      const whole = MESSAGE_HEADER_BYTES + (header % 2 ** 24)
      if (whole > MAX_HELLO_BYTES) return malformed(`a ClientHello of ${whole} bytes`)
      if (have + length > whole) return malformed('a record with more than the ClientHello')
      if (bytes.length < end) return more(end)
      if (have + length === whole) return match(at === 0 ? bytes.subarray(fragmentAt, end) : joined(bytes, whole))
    }
    if (bytes.length < end) return more(end)
    if (records === MAX_RECORDS) return malformed(`a ClientHello in more than ${MAX_RECORDS} records`)
    have += length
    at = end
  }
}

/** Says no as early as it can: the bytes may belong to any protocol. */
function firstHeader(bytes: Uint8Array): Probed<never> | undefined {
  if (bytes.length === 0) return more(1)
  const type = bytes[0]
  if (type !== HANDSHAKE && type !== ALERT) return NO // also what begins with SSL 2.0's hello, which names no server
  if (bytes.length === 1) return more(2)
  const isOurVersion = bytes[1] === 3
  if (type === ALERT ? !isOurVersion : bytes[1]! > MAX_MAJOR) return NO
  if (bytes.length < RECORD_HEADER_BYTES) return more(RECORD_HEADER_BYTES)
  const length = lengthAt(bytes, 0)
  // a server may read past a warning (Go's does), so what follows may well be a hello
  if (type === ALERT) return length === ALERT_BYTES ? malformed('an alert before the ClientHello') : NO
  return isOurVersion ? badLength(length) : otherVersion(bytes, length)
}

/** A hello to a server that takes any low version (Go: below 0x1000), and to others none. Anything else is another protocol. */
function otherVersion(bytes: Uint8Array, length: number): Probed<never> {
  if (length < MESSAGE_HEADER_BYTES || length > MAX_FRAGMENT_BYTES) return NO
  if (bytes.length === 5) return more(6)
  if (bytes[5] !== CLIENT_HELLO) return NO
  if (bytes.length === 6) return more(7)
  return bytes[6] === 0 ? malformed(`a record of version ${bytes[1]}.${bytes[2]}`) : NO
}

function nextHeader(bytes: Uint8Array, at: number): Probed<never> | undefined {
  if (bytes.length < at + RECORD_HEADER_BYTES) return more(at + RECORD_HEADER_BYTES)
  if (bytes[at] !== HANDSHAKE) return malformed(`a record of type ${bytes[at]} within the ClientHello`)
  if (bytes[at + 1] !== 3) return malformed(`a record of version ${bytes[at + 1]}.${bytes[at + 2]}`)
  return badLength(lengthAt(bytes, at))
}

function badLength(length: number): Probed<never> | undefined {
  if (length === 0) return malformed('an empty record') // RFC 8446 §5.1 forbids it for handshake messages
  return length > MAX_FRAGMENT_BYTES ? malformed(`a record of ${length} bytes`) : undefined
}

function lengthAt(bytes: Uint8Array, at: number): number {
  return (bytes[at + 3]! << 8) | bytes[at + 4]!
}

function joined(bytes: Uint8Array, whole: number): Uint8Array {
  const message = new Uint8Array(whole)
  let at = 0
  for (let have = 0; have < whole; ) {
    const length = lengthAt(bytes, at)
    const fragmentAt = at + RECORD_HEADER_BYTES
    message.set(bytes.subarray(fragmentAt, fragmentAt + length), have)
    have += length
    at = fragmentAt + length
  }
  return message
}
