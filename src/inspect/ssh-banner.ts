import { latin1 } from './latin1.ts'
import { malformed, match, more, NO, type Probed } from './probe.ts'

/** How an SSH client names itself. */
export interface SshBanner {
  readonly protocol: 'ssh'
  /** `2.0`; of old clients `1.99` or `1.5`. */
  readonly version: string
  readonly software: string
  /** Behind the software's name; undefined: none. */
  readonly comments: string | undefined
}

const PREFIX = Buffer.from('SSH-')
const MAX_BYTES = 255 // with CR and LF, RFC 4253 §4.2
const LF = 0x0a
/** A banner that an HTTP server could take for a request, `SSH-2.0-x / HTTP/1.1`: no client's comments end so. */
const REQUEST_LINE = /HTTP\/\d\.\d$/
// The software has no `-` in RFC 4253; clients do send one (JSCH-0.1.54), and no reader ends the name there.
const BANNER = /^SSH-(\d+\.\d+)-([\x21-\x7e]+)(?: ([\x20-\x7e]*))?\r?$/

/** Whether these are an SSH client's bytes, and nobody else's. */
export function beginsAsSsh(bytes: Uint8Array): boolean {
  return PREFIX.equals(bytes.subarray(0, PREFIX.length))
}

/**
 * Reads a client's identification string (RFC 4253 §4.2); a client sends nothing before it. LF alone may end it, as servers have it
 * for old clients' sake (§5.1). Clients may wait for the server's, which comes without being asked.
 */
export function probeSsh(bytes: Uint8Array): Probed<SshBanner> {
  for (let i = 0; i < PREFIX.length && i < bytes.length; i++) if (bytes[i] !== PREFIX[i]) return NO
  const shown = bytes.subarray(0, MAX_BYTES)
  const end = shown.indexOf(LF)
  if (end < 0) {
    if (shown.length === MAX_BYTES) return malformed(`banner is longer than ${MAX_BYTES} bytes`)
    return more(Math.max(PREFIX.length, bytes.length) + 1)
  }
  const parts = BANNER.exec(latin1(shown, 0, end))
  if (parts === null) return malformed('banner is not version and software')
  const [, version = '', software = '', comments] = parts
  if (comments !== undefined && REQUEST_LINE.test(comments)) return malformed('banner is a request, too')
  return match({ protocol: 'ssh', version, software, comments })
}
