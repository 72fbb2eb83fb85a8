import type { Credentials } from '../config/policy-types.ts'
import { formatEndpoint } from '../net/address.ts'
import { type Conversation, MAX_ANSWER_BYTES, MORE, type Step, shown, type ViaTarget } from './via-conversation.ts'

const CR = 0x0d
const LF = 0x0a
const MAX_INTERIM = 4 // answers with a status of 1xx; nobody has a reason for one
const STATUS_LINE = /^HTTP\/1\.[01] ([1-5]\d\d)(?: .*)?$/s
const PREFIX = Buffer.from('HTTP/1.')

/** Asks an HTTP proxy for a tunnel (RFC 9110 §9.3.6), with Basic credentials (RFC 7617). Any 2xx opens it, whatever fields there are. */
export function connectConversation(target: ViaTarget, credentials: Credentials | undefined): Conversation {
  const authority = target.host === undefined ? formatEndpoint(target) : `${target.host}:${target.port}`
  const fields = [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`]
  if (credentials !== undefined) {
    const { user, password } = credentials
    fields.push(`Proxy-Authorization: Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`)
  }
  let interim = 0
  return {
    opening: Buffer.from(`${fields.join('\r\n')}\r\n\r\n`, 'latin1'),
    next: (bytes) => {
      const step = readAnswer(bytes)
      return step.kind === 'say' && ++interim > MAX_INTERIM ? failed('too many interim answers', bytes) : step
    },
  }
}

function readAnswer(bytes: Uint8Array): Step {
  for (let i = 0; i < PREFIX.length && i < bytes.length; i++) {
    if (bytes[i] !== PREFIX[i]) return failed('no answer of HTTP', bytes)
  }
  const lineEnd = bytes.indexOf(LF)
  if (lineEnd < 0) return bytes.length < MAX_ANSWER_BYTES ? MORE : failed('its status line has no end', bytes)
  const line = bytes.subarray(0, lineEnd - 1)
  const status = bytes[lineEnd - 1] === CR ? STATUS_LINE.exec(Buffer.from(line).toString('latin1'))?.[1] : undefined
  if (status === undefined || status === '101') return failed('no status line', bytes.subarray(0, lineEnd))
  if (status[0] !== '2' && status[0] !== '1') return { kind: 'refused', why: shown(line.subarray(PREFIX.length + 2)) }
  const used = headEnd(bytes, lineEnd)
  if (used === -1) return failed('a line of its head does not end with CR and LF', bytes)
  if (used === 0) return bytes.length < MAX_ANSWER_BYTES ? MORE : failed('its head has no end', bytes)
  return status[0] === '1' ? { kind: 'say', used, bytes: new Uint8Array() } : { kind: 'open', used }
}

/** Bytes up to and with the empty line; 0: it is not there yet; -1: a bare LF, which another reader may take for it. */
function headEnd(bytes: Uint8Array, firstLineEnd: number): number {
  let from = firstLineEnd + 1
  for (;;) {
    const end = bytes.indexOf(LF, from)
    if (end < 0) return 0
    if (bytes[end - 1] !== CR) return -1
    if (end === from + 1) return end + 1
    from = end + 1
  }
}

function failed(what: string, bytes: Uint8Array): Step {
  return { kind: 'failed', why: `${what}: "${shown(bytes)}"` }
}
