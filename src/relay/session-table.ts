import { NAME_WORDS } from '../sys/message-headers.ts'
import { isIpv6Word } from '../sys/sockaddr.ts'

const KEY_WORDS = 2 * NAME_WORDS
const FLOW_LABEL_WORD = 1 // sin6_flowinfo: not a part of who is who (RFC 6437 §2)

/** How a session is likely to go on, for which its idle time and its place at evictions are chosen. First to go come first. */
export const IDLE_CLASSES = ['unanswered', 'query', 'stream'] as const
export type IdleClass = (typeof IDLE_CLASSES)[number]

/** What the table keeps of each session; the table's own but for `key`. */
export class SessionEntry {
  /** The client's sockaddr, then that of where it sent to, NAME_WORDS words each. */
  readonly key: Uint32Array
  readonly hash: number
  /** The client's address: what `perClient` counts by. */
  readonly clientAddress: string
  idleClass: IdleClass = 'unanswered'
  /** Monotonic milliseconds. */
  activeAt: number
  inTable = false
  next: SessionEntry | undefined
  readonly byIdle = new Link(this)
  readonly byClient = new Link(this)

  constructor(key: Uint32Array, hash: number, clientAddress: string, now: number) {
    this.key = key
    this.hash = hash
    this.clientAddress = clientAddress
    this.activeAt = now
  }
}

/** A place in a list. */
class Link {
  readonly entry: SessionEntry | undefined
  before: Link
  after: Link

  constructor(entry: SessionEntry | undefined) {
    this.entry = entry
    this.before = this
    this.after = this
  }

  /** Takes itself out of its list. */
  leave(): void {
    this.before.after = this.after
    this.after.before = this.before
    this.before = this
    this.after = this
  }

  /** Becomes the last of a list. */
  joinEnd(list: Link): void {
    this.leave()
    this.before = list.before
    this.after = list
    list.before.after = this
    list.before = this
  }
}

interface ClientSessions {
  count: number
  readonly list: Link
}

/** Monotonic milliseconds that a session must have been idle before it makes room for another: less, and two floods would evict each other's. */
const EVICTABLE_AFTER_MS = 1_000

export interface SessionBounds {
  /** Sessions at once. */
  readonly sessions: number
  /** Sessions at once of one client address. */
  readonly perClient: number
}

/**
 * The sessions of a proxy: found by (client, original destination), in the order of their last datagram, counted by client.
 * When there is no room, the one that is idle longest has to go, those that were never answered first.
 */
export class SessionTable<S extends SessionEntry> {
  readonly #bounds: SessionBounds
  readonly #buckets = new Map<number, S>()
  readonly #idle: Readonly<Record<IdleClass, Link>> = {
    unanswered: new Link(undefined),
    query: new Link(undefined),
    stream: new Link(undefined),
  }
  readonly #clients = new Map<string, ClientSessions>()
  // nobody outside can choose addresses and ports that fall into one bucket
  readonly #seed = (Math.random() * 2 ** 32) | 0
  #size = 0

  constructor(bounds: SessionBounds) {
    this.#bounds = bounds
  }

  get size(): number {
    return this.#size
  }

  get bound(): number {
    return this.#bounds.sessions
  }

  /** `salt` keeps apart what has the same addresses: listeners, upstreams. */
  hashOf(client: Uint32Array, clientAt: number, dst: Uint32Array, dstAt: number, salt: number): number {
    const words = isIpv6Word(client[clientAt]!) ? NAME_WORDS - 1 : 2
    let hash = this.#seed ^ Math.imul(salt + 1, 0x9e37_79b1)
    for (let i = 0; i < words; i++) {
      if (words > 2 && i === FLOW_LABEL_WORD) continue
      hash = mix(hash ^ client[clientAt + i]!)
      hash = mix(hash ^ dst[dstAt + i]!)
    }
    return hash
  }

  find(
    hash: number,
    client: Uint32Array,
    clientAt: number,
    dst: Uint32Array,
    dstAt: number,
    isWanted: (session: S) => boolean,
  ): S | undefined {
    let session = this.#buckets.get(hash)
    while (session !== undefined) {
      if (sameEnds(session.key, client, clientAt, dst, dstAt) && isWanted(session)) return session
      session = session.next as S | undefined
    }
    return undefined
  }

  /**
   * Who has to go so that this client can have another session: nobody (undefined), one that is idle longest, or
   * `full` when all have been busy a moment ago.
   */
  whoMustGo(client: string, now: number): S | 'client-full' | 'full' | undefined {
    const own = this.#clients.get(client)
    if (own !== undefined && own.count >= this.#bounds.perClient) {
      const oldest = own.list.after.entry as S
      return now - oldest.activeAt >= EVICTABLE_AFTER_MS ? oldest : 'client-full'
    }
    if (this.#size < this.#bounds.sessions) return undefined
    for (const idleClass of IDLE_CLASSES) {
      const oldest = this.#idle[idleClass].after.entry as S | undefined
      if (oldest !== undefined && now - oldest.activeAt >= EVICTABLE_AFTER_MS) return oldest
    }
    return 'full'
  }

  add(session: S): void {
    session.inTable = true
    session.next = this.#buckets.get(session.hash)
    this.#buckets.set(session.hash, session)
    session.byIdle.joinEnd(this.#idle[session.idleClass])
    const own = this.#clients.get(session.clientAddress) ?? { count: 0, list: new Link(undefined) }
    if (own.count === 0) this.#clients.set(session.clientAddress, own)
    own.count++
    session.byClient.joinEnd(own.list)
    this.#size++
  }

  remove(session: S): void {
    if (!session.inTable) return
    session.inTable = false
    const first = this.#buckets.get(session.hash)!
    if (first === session) {
      if (session.next === undefined) this.#buckets.delete(session.hash)
      else this.#buckets.set(session.hash, session.next as S)
    } else {
      let before: SessionEntry = first
      while (before.next !== session) before = before.next!
      before.next = session.next
    }
    session.byIdle.leave()
    session.byClient.leave()
    const own = this.#clients.get(session.clientAddress)!
    own.count--
    if (own.count === 0) this.#clients.delete(session.clientAddress)
    this.#size--
  }

  /** A datagram moved. */
  touch(session: S, now: number): void {
    if (session.activeAt === now || !session.inTable) return
    session.activeAt = now
    session.byIdle.joinEnd(this.#idle[session.idleClass])
    const own = this.#clients.get(session.clientAddress)!
    if (own.count > 1) session.byClient.joinEnd(own.list)
  }

  /** Puts a session into another class, as the one that was active last. */
  reclass(session: S, idleClass: IdleClass): void {
    if (!session.inTable) return
    session.idleClass = idleClass
    session.byIdle.joinEnd(this.#idle[idleClass])
  }

  /** Sessions of a class from the one that is idle longest on, until `visit` answers false. It may remove them. */
  oldestFirst(idleClass: IdleClass, visit: (session: S) => boolean): void {
    const list = this.#idle[idleClass]
    for (let link = list.after; link !== list; ) {
      const { after } = link
      if (!visit(link.entry as S)) return
      link = after
    }
  }

  *[Symbol.iterator](): Generator<S> {
    for (const idleClass of IDLE_CLASSES) {
      const list = this.#idle[idleClass]
      for (let link = list.after; link !== list; ) {
        const { after } = link
        yield link.entry as S
        link = after
      }
    }
  }
}

/** The key of a session with these ends. */
export function keyOf(client: Uint32Array, clientAt: number, dst: Uint32Array, dstAt: number): Uint32Array {
  const key = new Uint32Array(KEY_WORDS)
  for (let i = 0; i < NAME_WORDS; i++) {
    key[i] = client[clientAt + i]!
    key[NAME_WORDS + i] = dst[dstAt + i]!
  }
  return key
}

function sameEnds(key: Uint32Array, client: Uint32Array, clientAt: number, dst: Uint32Array, dstAt: number): boolean {
  if (key[0] !== client[clientAt] || key[NAME_WORDS] !== dst[dstAt]) return false
  if (!isIpv6Word(key[0]!)) return key[1] === client[clientAt + 1] && key[NAME_WORDS + 1] === dst[dstAt + 1]
  for (let i = FLOW_LABEL_WORD + 1; i < NAME_WORDS - 1; i++) {
    if (key[i] !== client[clientAt + i] || key[NAME_WORDS + i] !== dst[dstAt + i]) return false
  }
  return true
}

/** The finalizer of MurmurHash3: every bit of the input changes half of the output's. */
function mix(value: number): number {
  let hash = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return hash ^ (hash >>> 16)
}
