import { type Endpoint, type Family, familyOf } from '../net/address.ts'
import { Allowance } from '../relay/allowance.ts'
import { EACCES, ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, EPERM } from '../sys/errno.ts'
import { type IcmpError, IcmpErrors, type Quoted } from '../sys/raw-datagrams.ts'
import { receiveSequence } from '../sys/receive-sequence.ts'
import { SOCKADDR_WORDS, sockaddrWords } from '../sys/sockaddr.ts'
import type { UdpContext } from './udp-context.ts'

// as net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst: one a millisecond, 50 at once
const AT_ONCE = 50
const EVERY_MS = 1

/** Tells clients by ICMP what servers and routers said about their datagrams, as it would have come to them without a proxy; and what the policy forbids. */
export class ClientErrors {
  readonly #mark: number
  readonly #sockets: Partial<Record<Family, IcmpErrors | 'none'>> = {}
  readonly #allowance = new Allowance(AT_ONCE, EVERY_MS)

  constructor(mark: number) {
    this.#mark = mark
  }

  /**
   * `client`, `dst`: words of sockaddrs, the ends of the client's packet as it sees them.
   * @returns whether the client was told.
   */
  tell(family: Family, error: IcmpError, client: Uint32Array, dst: Uint32Array, quoted: Quoted): boolean {
    const now = performance.now()
    if (this.#allowance.waitMs(now) > 0) return false
    const socket = this.#socket(family)
    if (socket === 'none') return false
    this.#allowance.take(now)
    return socket.send(error, client, dst, quoted) === 0
  }

  close(): void {
    for (const family of [4, 6] as const) {
      const socket = this.#sockets[family]
      if (socket !== undefined && socket !== 'none') socket.close()
      delete this.#sockets[family]
    }
  }

  /** `none`: without CAP_NET_RAW clients are not told. */
  #socket(family: Family): IcmpErrors | 'none' {
    const known = this.#sockets[family]
    if (known !== undefined) return known
    let socket: IcmpErrors | 'none'
    try {
      socket = new IcmpErrors(family, this.#mark)
    } catch {
      socket = 'none'
    }
    this.#sockets[family] = socket
    return socket
  }
}

/** What an error of a connected UDP socket says, in the words of ICMP; undefined when it is no ICMP error. `mtu`: of the path. */
function icmpErrorOf(errno: number, mtu: number): IcmpError | undefined {
  switch (errno) {
    case ECONNREFUSED:
      return { kind: 'port-unreachable' }
    case EHOSTUNREACH:
    case ENETUNREACH:
      return { kind: 'host-unreachable' }
    case EACCES:
    case EPERM:
      return { kind: 'prohibited' }
    case EMSGSIZE:
      return mtu > 0 ? { kind: 'too-big', mtu } : undefined
    default:
      return undefined
  }
}

/**
 * Tells a session's client, or one that was to have a session, what an errno says about a datagram of `bytes` (0: not known), where it
 * is an ICMP error. `mtu`: of the path, with EMSGSIZE.
 */
export function tellClient(
  { reached, key }: { readonly reached: Endpoint; readonly key: Uint32Array },
  errno: number,
  { errors, counters }: Pick<UdpContext, 'errors' | 'counters'>,
  { mtu, bytes } = { mtu: 0, bytes: 0 },
): void {
  const error = icmpErrorOf(errno, mtu)
  if (error === undefined) return
  const quoted = { datagram: bytes }
  if (errors.tell(familyOf(reached.address), error, key, key.subarray(SOCKADDR_WORDS), quoted))
    counters.errorsToClient++
}

/**
 * Tells a TCP client that what it wants is prohibited. Its connection is established, so that to it this is a soft error (RFC 1122
 * §4.2.3.9), and a reset must follow. Quoted is the sequence number of its next byte, which lies in its window (RFC 5927 §4.1); where it
 * is not known 0, and then most clients ignore the message.
 */
export function tellProhibited(
  { fd, client, reached }: { readonly fd: number; readonly client: Endpoint; readonly reached: Endpoint },
  errors: ClientErrors,
): void {
  const quoted = { segment: receiveSequence(fd) ?? 0 }
  errors.tell(familyOf(reached.address), { kind: 'prohibited' }, sockaddrWords(client), sockaddrWords(reached), quoted)
}
