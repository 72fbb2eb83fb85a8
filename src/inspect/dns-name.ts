/** A name on the wire with its length bytes and its root, RFC 1035 §2.3.4. */
export const MAX_NAME_BYTES = 255
export const MAX_LABEL_BYTES = 63
const POINTER = 0xc0 // the two high bits of a length byte, RFC 1035 §4.1.4
const HEADER_BYTES = 12
const MAX_HOPS = 127 // as many as a name may have labels

/** ASCII lower case of a byte, RFC 4343 §3; a label's length byte is below `A` and stays. */
export const LOWER_CASE = Uint8Array.from({ length: 256 }, (_, byte) => (byte >= 65 && byte <= 90 ? byte + 32 : byte))

/** Where the name at `at`, which has no compression pointer, ends; -1 when there is no such name before `end`. */
export function plainNameEnd(bytes: Uint8Array, at: number, end: number): number {
  const limit = Math.min(end, at + MAX_NAME_BYTES)
  let next = at
  while (next < limit) {
    const length = bytes[next]!
    if (length === 0) return next + 1
    if (length > MAX_LABEL_BYTES) return -1
    next += length + 1
  }
  return -1
}

/**
 * Where the name at `at` ends in its place, without following its pointer; -1 when it is none, or its pointer does not lead
 * backwards behind the header.
 */
export function nameEnd(bytes: Uint8Array, at: number, end: number): number {
  const limit = Math.min(end, at + MAX_NAME_BYTES)
  let next = at
  while (next < limit) {
    const length = bytes[next]!
    if (length === 0) return next + 1
    if (length >= POINTER) return next + 1 < end && pointsBack(bytes, next, at) ? next + 2 : -1
    if (length > MAX_LABEL_BYTES) return -1
    next += length + 1
  }
  return -1
}

function pointsBack(bytes: Uint8Array, pointer: number, before: number): boolean {
  const target = targetOf(bytes, pointer)
  return target < before && target >= HEADER_BYTES
}

function targetOf(bytes: Uint8Array, pointer: number): number {
  return ((bytes[pointer]! & 0x3f) << 8) | bytes[pointer + 1]!
}

/**
 * Writes the name at `at`, expanded and in lower case, to `out` (MAX_NAME_BYTES long). Returns its length; -1 when it is no
 * name, too long, or a pointer of it does not lead backwards.
 */
export function expandName(bytes: Uint8Array, at: number, end: number, out: Uint8Array): number {
  let before = at // pointers must lead to before the part that they end, so no name is read twice
  let next = at
  let written = 0
  let hops = 0
  while (next < end) {
    const length = bytes[next]!
    if (length >= POINTER) {
      if (++hops > MAX_HOPS || next + 1 >= end || !pointsBack(bytes, next, before)) return -1
      next = before = targetOf(bytes, next)
      continue
    }
    if (length > MAX_LABEL_BYTES || written + length + 1 > MAX_NAME_BYTES || next + length >= end) return -1
    for (let i = 0; i <= length; i++) out[written++] = LOWER_CASE[bytes[next + i]!]!
    if (length === 0) return written
    next += length + 1
  }
  return -1
}

/**
 * A name on the wire as text, without the root's dot: `www.example.org`. What is no letter, digit, `-` or `_` is written
 * `\DDD` (RFC 1035 §5.1), so the text is one safe word.
 */
export function nameText(wire: Uint8Array, at = 0): string {
  let written = 0
  for (let next = at; next < wire.length && wire[next] !== 0; next += wire[next]! + 1) {
    if (written + 1 + wire[next]! > MAX_NAME_BYTES) return escapedText(wire, at)
    if (written > 0) text[written++] = DOT
    const end = Math.min(next + wire[next]!, wire.length - 1)
    for (let i = next + 1; i <= end; i++) {
      const plain = PLAIN_TEXT[wire[i]!]!
      if (plain === 0) return escapedText(wire, at)
      text[written++] = plain
    }
  }
  return written === 0 ? '.' : text.latin1Slice(0, written)
}

function escapedText(wire: Uint8Array, at: number): string {
  const labels: string[] = []
  for (let next = at; next < wire.length && wire[next] !== 0; next += wire[next]! + 1) {
    let label = ''
    for (const byte of wire.subarray(next + 1, next + 1 + wire[next]!)) label += BYTE_TEXT[byte]
    labels.push(label)
  }
  return labels.join('.')
}

const BYTE_TEXT = Array.from({ length: 256 }, (_, byte) => {
  const text = String.fromCharCode(byte)
  return /[\w-]/.test(text) ? text.toLowerCase() : `\\${String(byte).padStart(3, '0')}`
})

/** The wire form of `www.example.org` (`.` is the root), in lower case; undefined when it is no name of printable ASCII. */
export function nameBytes(text: string): Uint8Array | undefined {
  const bare = text.endsWith('.') ? text.slice(0, -1) : text
  const labels = bare === '' && text !== '' ? [] : bare.split('.')
  if (!labels.every((label) => /^[!-[\]-~]{1,63}$/.test(label))) return undefined
  const wire = Buffer.from(`${labels.map((label) => String.fromCharCode(label.length) + label).join('')}\0`, 'latin1')
  return wire.length > MAX_NAME_BYTES ? undefined : wire.map((byte) => LOWER_CASE[byte]!)
}

/** What a byte is written as where that is one byte; else 0. */
const PLAIN_TEXT = Uint8Array.from(BYTE_TEXT, (text) => (text.length === 1 ? text.charCodeAt(0) : 0))
const DOT = 0x2e
/** Node's own, without the checks of toString(): every question that rules are asked about has a text. */
const text = Buffer.alloc(MAX_NAME_BYTES) as Buffer & { latin1Slice(start: number, end: number): string }
