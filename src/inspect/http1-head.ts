import { CONTROL, LENGTH, MAX_FIELDS, MAX_HEAD_BYTES, TARGET, TOKEN } from './http-grammar.ts'
import { readDestination } from './http1-target.ts'
import { latin1 } from './latin1.ts'
import { malformed, match, more, NO, type Probed } from './probe.ts'

/** The head of a connection's first HTTP/1 request. What follows on the connection may name other hosts: this says nothing of it. */
export interface Http1Head {
  readonly protocol: 'http1'
  readonly method: string
  /** As it was sent. */
  readonly target: string
  /** The target's path as it was sent, without its query: neither decoded nor normalised. `*` of OPTIONS, empty of CONNECT. */
  readonly path: string
  /** Canonical; undefined when an address stands there, or nothing. */
  readonly host: string | undefined
  /** Canonical IP literal; undefined when a name stands there, or nothing. */
  readonly address: string | undefined
  /** Undefined: none was named. */
  readonly port: number | undefined
  /** `1.0`, `1.1`, or a later minor version, which is read as 1.1 (RFC 9110 §2.5). */
  readonly version: string
}

const LF = 0x0a
const BLANKS: ReadonlySet<number> = new Set([0x09, LF, 0x0b, 0x0c, 0x0d, 0x20]) // what lenient readers separate by, RFC 9112 §3
const TOKEN_BYTES = tokenBytes()

const LOOKS_LIKE_HTTP = /[\t\v\f\r ]http\//i
const REQUEST_LINE = /^([^ \t]+) ([^ \t]+) HTTP\/(1\.\d)$/
/** What git(1) sends first over its own protocol: a method and a target, too, and then it waits, with no line end (gitprotocol-pack(5)). */
const GIT_REQUEST = /^[0-9a-f]{4}git-[a-z-]+ [^\0\r\n]+\0host=[^\0\r\n]*\0/
const HTTP2_PREFACE = 'PRI * HTTP/2.0'
const TRANSFER_CODINGS = /^(?:(?:x-)?(?:gzip|compress) *, *|deflate *, *)?chunked$/i // RFC 9112 §7.2

/**
 * Reads the head of a request as RFC 9112 and RFC 9110 have it. What they forbid is `malformed`, and so is what they let a server forgive
 * when servers differ in it: a line that ends with LF alone, Content-Length beside Transfer-Encoding (docs/inspection/http.md). HTTP/0.9
 * and HTTP/2 are `no`. Looks at 16,384 bytes at the most, the time is linear in them.
 */
export function probeHttp1(bytes: Uint8Array): Probed<Http1Head> {
  const shown = bytes.length > MAX_HEAD_BYTES ? bytes.subarray(0, MAX_HEAD_BYTES) : bytes
  let start = 0
  while (start < shown.length && BLANKS.has(shown[start]!)) start++
  let methodEnd = start
  while (methodEnd < shown.length && TOKEN_BYTES[shown[methodEnd]!] === 1) methodEnd++
  if (methodEnd === MAX_HEAD_BYTES) return NO
  if (methodEnd === shown.length) return more(shown.length + 1)
  if (methodEnd === start || !BLANKS.has(shown[methodEnd]!)) return NO

  const lineEnd = shown.indexOf(LF, methodEnd)
  if (lineEnd < 0) return GIT_REQUEST.test(latin1(shown, 0, shown.length)) ? NO : beyond(shown)
  const line = latin1(shown, start, lineEnd)
  if (!LOOKS_LIKE_HTTP.test(line) || line.startsWith(HTTP2_PREFACE)) return NO
  if (start > 0 && !isCrLf(shown, start)) return malformed('something stands before the request line') // RFC 9112 §2.2: one empty line may
  const fault = lineFault(line)
  if (fault !== undefined) return malformed(fault)
  const parts = REQUEST_LINE.exec(line.slice(0, -1))
  if (parts === null) return malformed('request line is not method, target and HTTP/1 version')
  const [, method = '', target = '', version = ''] = parts
  if (!TARGET.test(target)) return malformed('target has characters that none may have')

  const fields = new Fields()
  for (let at = lineEnd + 1; ; ) {
    const end = shown.indexOf(LF, at)
    if (end < 0) return beyond(shown)
    const text = latin1(shown, at, end)
    if (text === '\r') break
    const why = lineFault(text) ?? fields.add(text.slice(0, -1))
    if (why !== undefined) return malformed(why)
    at = end + 1
  }
  const why = fields.fault(version)
  if (why !== undefined) return malformed(why)
  const destination = readDestination(method, target, fields.host)
  if (typeof destination === 'string') return malformed(destination)
  const { path, host, address, port } = destination
  return match({ protocol: 'http1', method, target, path, host, address, port, version })
}

/** Those of a head's fields by which servers find its host and its end. */
class Fields {
  host: string | undefined
  #count = 0
  #length: string | undefined
  #coding: string | undefined

  /** Takes a line without its end; says what is wrong with it. */
  add(line: string): string | undefined {
    if (line.startsWith(' ') || line.startsWith('\t')) return 'folded line' // RFC 9112 §5.2
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(colon, 0))
    if (!TOKEN.test(name)) return 'field line is not name, colon and value' // also blanks before the colon, RFC 9112 §5.1
    if (++this.#count > MAX_FIELDS) return `more than ${MAX_FIELDS} fields`
    const value = withoutBlanks(line, colon + 1)
    switch (name.toLowerCase()) {
      case 'host':
        if (this.host !== undefined) return 'Host more than once' // RFC 9112 §3.2
        this.host = value
        return undefined
      case 'content-length':
        if (this.#length !== undefined) return 'Content-Length more than once'
        this.#length = value
        return LENGTH.test(value) ? undefined : 'Content-Length is no length'
      case 'transfer-encoding':
        if (this.#coding !== undefined) return 'Transfer-Encoding more than once'
        this.#coding = value
        return TRANSFER_CODINGS.test(value) ? undefined : 'Transfer-Encoding does not end with chunked' // RFC 9112 §6.3
      default:
        return undefined
    }
  }

  /** What is wrong with all of them together. */
  fault(version: string): string | undefined {
    if (this.host === undefined && version !== '1.0') return 'Host is missing' // RFC 9112 §3.2
    if (this.#coding === undefined) return undefined
    if (this.#length !== undefined) return 'Content-Length and Transfer-Encoding' // RFC 9112 §6.1
    return version === '1.0' ? 'Transfer-Encoding in HTTP/1.0' : undefined // RFC 9112 §6.1
  }
}

/** The text from `from` on, without SP and HTAB around it: by hand, since a pattern would look at long blanks again and again. */
function withoutBlanks(text: string, from: number): string {
  const isBlank = (at: number): boolean => text[at] === ' ' || text[at] === '\t'
  let start = from
  let end = text.length
  while (start < end && isBlank(start)) start++
  while (end > start && isBlank(end - 1)) end--
  return text.slice(start, end)
}

/** Of a line up to its LF: it has to end with CR, and to have no control character but HTAB (RFC 9112 §2.2, RFC 9110 §5.5). */
function lineFault(line: string): string | undefined {
  if (!line.endsWith('\r')) return 'line ends with LF alone'
  const text = line.slice(0, -1)
  if (!CONTROL.test(text)) return undefined
  return text.includes('\r') ? 'CR inside a line' : 'control character'
}

/** No further line end among the bytes. */
function beyond(shown: Uint8Array): Probed<never> {
  return shown.length < MAX_HEAD_BYTES
    ? more(shown.length + 1)
    : malformed(`head is longer than ${MAX_HEAD_BYTES} bytes`)
}

function isCrLf(bytes: Uint8Array, length: number): boolean {
  return length === 2 && bytes[0] === 0x0d && bytes[1] === LF
}

/** 1 at each byte that a token may have, RFC 9110 §5.6.2. */
function tokenBytes(): Uint8Array {
  const table = new Uint8Array(256)
  for (const byte of Buffer.from("!#$%&'*+-.^_`|~0123456789")) table[byte] = 1
  for (let letter = 0x41; letter <= 0x5a; letter++) table[letter] = table[letter | 0x20] = 1
  return table
}
