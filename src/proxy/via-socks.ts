import type { Credentials } from '../config/policy-types.ts'
import { addressBytes, familyOf } from '../net/address.ts'
import { type Conversation, MORE, type Step, shown, type ViaTarget } from './via-conversation.ts'

const VERSION = 5
const NO_AUTHENTICATION = 0
const USER_AND_PASSWORD = 2
const NONE_ACCEPTABLE = 0xff
const AUTHENTICATION_VERSION = 1 // RFC 1929 §2
const CONNECT = 1
const ADDRESS_TYPE = { 4: 1, name: 3, 6: 4 } as const
const MAX_NAME_BYTES = 255
/** RFC 1928 §6. */
const REPLIES: readonly string[] = [
  'succeeded',
  'general failure',
  'not allowed by its rules',
  'network unreachable',
  'host unreachable',
  'connection refused',
  'TTL expired',
  'command not supported',
  'address type not supported',
]

/** Asks a SOCKS5 proxy for a connection (RFC 1928), with a user and password where it wants them (RFC 1929). */
export function socksConversation(target: ViaTarget, credentials: Credentials | undefined): Conversation {
  const methods = credentials === undefined ? [NO_AUTHENTICATION] : [NO_AUTHENTICATION, USER_AND_PASSWORD]
  const request = requestFor(target)
  let read: (bytes: Uint8Array) => Step = readMethod

  function readMethod(bytes: Uint8Array): Step {
    if (bytes.length > 0 && bytes[0] !== VERSION) return garbage(bytes)
    if (bytes.length < 2) return MORE
    const method = bytes[1]!
    if (method === NONE_ACCEPTABLE) return { kind: 'refused', why: 'no way of authentication that it accepts' }
    if (!methods.includes(method)) return garbage(bytes)
    if (method === NO_AUTHENTICATION) return ask()
    read = readStatus
    return { kind: 'say', used: 2, bytes: authenticationFor(credentials!) }
  }

  function readStatus(bytes: Uint8Array): Step {
    if (bytes.length > 0 && bytes[0] !== AUTHENTICATION_VERSION) return garbage(bytes)
    if (bytes.length < 2) return MORE
    return bytes[1] === 0 ? ask() : { kind: 'refused', why: `user and password (${bytes[1]})` }
  }

  function ask(): Step {
    read = readReply
    return { kind: 'say', used: 2, bytes: request }
  }

  return {
    opening: Uint8Array.of(VERSION, methods.length, ...methods),
    next: (bytes) => read(bytes),
  }
}

/** Version, reply, reserved, and an address that says nothing to us. */
function readReply(bytes: Uint8Array): Step {
  if (bytes.length > 0 && bytes[0] !== VERSION) return garbage(bytes)
  if (bytes.length < 2) return MORE
  const reply = bytes[1]!
  if (reply !== 0) return { kind: 'refused', why: `${REPLIES[reply] ?? 'reply'} (${reply})` }
  if (bytes.length < 5) return MORE
  const size = { 1: 4, 3: 1 + bytes[4]!, 4: 16 }[bytes[3]!]
  if (size === undefined) return garbage(bytes)
  const used = 4 + size + 2
  return bytes.length < used ? MORE : { kind: 'open', used }
}

function garbage(bytes: Uint8Array): Step {
  return { kind: 'failed', why: `no answer of SOCKS5: "${shown(bytes)}"` }
}

function authenticationFor({ user, password }: Credentials): Uint8Array {
  const [name, secret] = [Buffer.from(user), Buffer.from(password)]
  return Buffer.concat([Uint8Array.of(AUTHENTICATION_VERSION, name.length), name, Uint8Array.of(secret.length), secret])
}

function requestFor({ host, address, port }: ViaTarget): Uint8Array {
  const name = host === undefined ? undefined : Buffer.from(host)
  const destination =
    name !== undefined && name.length <= MAX_NAME_BYTES
      ? [Uint8Array.of(ADDRESS_TYPE.name, name.length), name]
      : [Uint8Array.of(ADDRESS_TYPE[familyOf(address)]), addressBytes(address)]
  return Buffer.concat([Uint8Array.of(VERSION, CONNECT, 0), ...destination, Uint8Array.of(port >> 8, port & 0xff)])
}
