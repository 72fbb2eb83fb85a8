import type { Endpoint } from '../net/address.ts'
import type { PortRange } from '../net/ports.ts'

const FIRST_PORT = 1_024
const LAST_PORT = 65_535
/** Steps of 1 to 4, so that the next port is not known from the last (RFC 6056 §3.3.5). */
const LARGEST_STEP = 4
const CROWDED_MS = 5_000
const CROWDED_PAIRS = 1_024
/**
 * A connect that took this long has tried thousands of ports. The kernel goes through all ports of one parity before
 * those of the other (__inet_hash_connect), so from 14,000 used ones on each connect costs milliseconds.
 */
const CROWDED_CONNECT_MS = 0.5
/** One slow connect may be the scheduler's doing; as many in a row are not. */
const CROWDED_CONNECTS = 3

/**
 * Source ports for when the kernel's own (net.ipv4.ip_local_port_range) are crowded: used, or in TIME_WAIT for a minute,
 * from one source towards one server. They lie outside of that range: a port that was bound by number is not given to
 * others by the kernel, so inside it they would be taken away from the whole host.
 */
export class SourcePorts {
  readonly #avoid: PortRange
  readonly #crowdedUntil = new Map<string, number>()
  #slowPair = ''
  #slowInARow = 0
  #next = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT))

  constructor(avoid: PortRange) {
    this.#avoid = avoid
  }

  /** Are there ports outside of the kernel's range at all? */
  get #areThere(): boolean {
    return this.#avoid.from > FIRST_PORT || this.#avoid.to < LAST_PORT
  }

  /** Were the kernel's ports found crowded from `source` towards `to` a moment ago? `now`: monotonic milliseconds. */
  isCrowded(source: string, to: Endpoint, now: number): boolean {
    return this.#crowdedUntil.size > 0 && this.#areThere && (this.#crowdedUntil.get(pairOf(source, to)) ?? 0) > now
  }

  /** Tells how long the kernel took to find a port, or that it found none (Infinity). */
  noteConnect(source: string, to: Endpoint, ms: number, now: number): void {
    if (ms < CROWDED_CONNECT_MS) {
      this.#slowInARow = 0
      return
    }
    const pair = pairOf(source, to)
    this.#slowInARow = pair === this.#slowPair ? this.#slowInARow + 1 : 1
    this.#slowPair = pair
    if (ms < Number.POSITIVE_INFINITY && this.#slowInARow < CROWDED_CONNECTS) return
    if (this.#crowdedUntil.size >= CROWDED_PAIRS) this.#crowdedUntil.clear()
    this.#crowdedUntil.set(pair, now + CROWDED_MS)
  }

  /** The next port to try, round and round. */
  next(): number {
    const { from, to } = this.#avoid
    let port = this.#next
    if (port >= from && port <= to) port = to + 1
    if (port > LAST_PORT) port = from > FIRST_PORT ? FIRST_PORT : LAST_PORT
    this.#next = port + 1 + Math.floor(Math.random() * LARGEST_STEP)
    return port
  }
}

function pairOf(source: string, to: Endpoint): string {
  return `${source} ${to.address} ${to.port}`
}
