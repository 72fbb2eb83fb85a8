import type { RateLimit } from '../config/policy-types.ts'
import { ByteBucket } from '../relay/byte-bucket.ts'
import type { EventLoop } from '../sys/loop.ts'
import { rateKey } from './rate-limits.ts'

/** Clients without a flow that are remembered. Those whose last flow is longest ago are forgotten, and begin with a burst again. */
const MAX_IDLE = 16_384

/** What the flows of one client, or of one rule, share. */
export interface ByteShare {
  readonly clientToUpstream: ByteBucket
  readonly upstreamToClient: ByteBucket
  /** The flow has ended. Once for each enter(). */
  leave(): void
}

class Shared implements ByteShare {
  readonly clientToUpstream: ByteBucket
  readonly upstreamToClient: ByteBucket
  flows = 0
  readonly #onIdle: () => void

  constructor(clientToUpstream: ByteBucket, upstreamToClient: ByteBucket, onIdle: () => void) {
    this.clientToUpstream = clientToUpstream
    this.upstreamToClient = upstreamToClient
    this.#onIdle = onIdle
  }

  leave(): void {
    this.flows--
    if (this.flows === 0) this.#onIdle()
  }
}

/**
 * The buckets of the rules with a limit of bytes. A flow keeps the ones that it got; what is decided by the same rule with the same limit shares
 * them, also after the policy was read again.
 */
export class ByteRates {
  readonly #loop: Pick<EventLoop, 'now' | 'later'>
  /** Those of flows: as many as there are flows at the most. */
  readonly #busy = new Map<string, Shared>()
  /** In the order in which their last flows ended. */
  readonly #idle = new Map<string, Shared>()

  constructor(loop: Pick<EventLoop, 'now' | 'later'>) {
    this.#loop = loop
  }

  /** A flow begins, whose share it leave()s when it ends; undefined where its bytes have no limit. `now`: monotonic milliseconds. */
  enter(
    rule: string | undefined,
    limit: RateLimit | undefined,
    clientAddress: string,
    now: number,
  ): ByteShare | undefined {
    if (limit?.bytes === undefined) return undefined
    const { bytes } = limit
    const key = `${bytes.perSecond} ${bytes.burst} ${rateKey(rule, limit.per, clientAddress)}`
    const shared =
      this.#busy.get(key) ??
      this.#idle.get(key) ??
      new Shared(new ByteBucket(bytes, this.#loop, now), new ByteBucket(bytes, this.#loop, now), () => this.#rest(key))
    this.#idle.delete(key)
    this.#busy.set(key, shared)
    shared.flows++
    return shared
  }

  #rest(key: string): void {
    const shared = this.#busy.get(key)!
    this.#busy.delete(key)
    if (shared.clientToUpstream.isFull && shared.upstreamToClient.isFull) return
    if (this.#idle.size >= MAX_IDLE) this.#idle.delete(this.#idle.keys().next().value!)
    this.#idle.set(key, shared)
  }
}
