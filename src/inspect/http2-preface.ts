import { firstFields } from './hpack.ts'
import { MAX_FIELDS, MAX_HEAD_BYTES } from './http-grammar.ts'
import { type Http2Request, readRequest } from './http2-request.ts'
import { malformed, match, more, NO, type Probed } from './probe.ts'

/** The head of the first request of an HTTP/2 connection with prior knowledge. Later streams may name other hosts. */
export interface Http2Head extends Http2Request {
  readonly protocol: 'http2'
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n') // RFC 9113 §3.4
const CERTAIN_BYTES = 'PRI * HTTP/2.0\r\n'.length // no other protocol begins so
const MAX_FRAMES = 64 // before the first request is complete
const HEADER_BYTES = 9 // of a frame, RFC 9113 §4.1
const PRIORITY_BYTES = 5
const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  windowUpdate: 8,
  continuation: 9,
} as const
const FLAG = { ack: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const
/** What a client can send before its first request; frames of unknown types are ignored (RFC 9113 §5.5). */
const BYTES_OF: ReadonlyMap<number, number> = new Map([
  [FRAME.priority, PRIORITY_BYTES],
  [FRAME.ping, 8],
  [FRAME.windowUpdate, 4],
])
const LAST_KNOWN = FRAME.continuation

/**
 * Reads an HTTP/2 connection's first bytes up to the end of its first HEADERS (RFC 9113 §3.4, §6.2): preface, SETTINGS, and what else
 * may come before. `more` until that request is complete, also where a client waits for the server's SETTINGS before it sends one.
 * Looks at 16,384 bytes at the most.
 */
export function probeHttp2(bytes: Uint8Array): Probed<Http2Head> {
  const shown = bytes.length > MAX_HEAD_BYTES ? bytes.subarray(0, MAX_HEAD_BYTES) : bytes
  const compared = Math.min(shown.length, PREFACE.length)
  for (let i = 0; i < compared; i++) {
    if (shown[i] !== PREFACE[i]) return i < CERTAIN_BYTES ? NO : malformed('preface goes on wrongly')
  }
  const block: Uint8Array[] = []
  let stream = 0
  let at = PREFACE.length
  for (let frames = 0; ; frames++) {
    if (at + HEADER_BYTES > shown.length) return beyond(at + HEADER_BYTES)
    const frame = frameAt(shown, at)
    const why = frames === 0 ? settingsFault(frame) : frames === MAX_FRAMES ? 'no request' : frameFault(frame, stream)
    if (why !== undefined) return malformed(why)
    if (frame.end > shown.length) return beyond(frame.end)
    at = frame.end
    if (frame.type !== FRAME.headers && frame.type !== FRAME.continuation) continue
    const part = blockPart(shown, frame)
    if (part === undefined) return malformed('padding or priority longer than the frame')
    stream = frame.stream
    block.push(part)
    if ((frame.flags & FLAG.endHeaders) !== 0) return readBlock(Buffer.concat(block))
  }
}

interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly length: number
  /** Where its payload begins, and where the next frame does. */
  readonly start: number
  readonly end: number
}

function frameAt(bytes: Uint8Array, at: number): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HEADER_BYTES)
  const length = view.getUint32(0) >>> 8
  const start = at + HEADER_BYTES
  const stream = view.getUint32(5) & 0x7fff_ffff
  return { type: bytes[at + 3]!, flags: bytes[at + 4]!, stream, length, start, end: start + length }
}

/** The first frame has to be SETTINGS, which may be empty. */
function settingsFault({ type, flags, stream, length }: Frame): string | undefined {
  if (type !== FRAME.settings || (flags & FLAG.ack) !== 0) return 'no SETTINGS behind the preface'
  return stream !== 0 || length % 6 !== 0 ? 'SETTINGS is malformed' : undefined // RFC 9113 §6.5
}

/** `stream`: of the request that has begun; 0: none has. */
function frameFault(frame: Frame, stream: number): string | undefined {
  const { type, flags } = frame
  if (stream !== 0)
    return type === FRAME.continuation && frame.stream === stream ? undefined : 'HEADERS are not continued' // §6.10
  if (type === FRAME.headers) return frame.stream % 2 === 1 ? undefined : 'HEADERS on a stream that is not the client’s'
  if (type === FRAME.settings && (flags & FLAG.ack) === 0) return settingsFault(frame)
  const size = BYTES_OF.get(type)
  if (size !== undefined) return frame.length === size ? undefined : 'frame of a wrong size'
  const mayBe = type > LAST_KNOWN || (type === FRAME.settings && frame.length === 0 && frame.stream === 0)
  return mayBe ? undefined : 'frame that cannot come before a request'
}

/** What HEADERS or CONTINUATION have of the field block; undefined when their padding says more than there is. */
function blockPart(bytes: Uint8Array, { type, flags, start, end }: Frame): Uint8Array | undefined {
  if (type === FRAME.continuation) return bytes.subarray(start, end)
  const isPadded = (flags & FLAG.padded) !== 0
  const from = start + (isPadded ? 1 : 0) + ((flags & FLAG.priority) !== 0 ? PRIORITY_BYTES : 0)
  if (from > end) return undefined
  const to = end - (isPadded ? bytes[start]! : 0)
  return from <= to ? bytes.subarray(from, to) : undefined
}

function readBlock(block: Uint8Array): Probed<Http2Head> {
  const fields = firstFields(block, MAX_FIELDS)
  if (fields === undefined) return malformed('field block cannot be read')
  const request = readRequest(fields)
  return typeof request === 'string' ? malformed(request) : match({ protocol: 'http2', ...request })
}

function beyond(atLeast: number): Probed<never> {
  if (atLeast > MAX_HEAD_BYTES) return malformed(`no request in ${MAX_HEAD_BYTES} bytes`)
  return more(atLeast)
}
