import { type Endpoint, type Family, familyOf, sameEndpoint } from '../../net/address.ts'

const SILENT_MS = 2_000 // longer than nearly every resolution, shorter than the 5 s after which clients ask again (resolv.conf(5))
const AVOIDED_MS = 10_000

/** One configured server and how it does. Times are monotonic milliseconds. */
export interface Upstream {
  readonly endpoint: Endpoint
  readonly family: Family
  /** The first query since its last answer; -1: none waits. */
  waitsSinceMs: number
  /** It did not answer or refused a connection: others are taken until then. */
  avoidedUntilMs: number
}

/** The servers of one configuration; how one does is known to all rules that name it. */
export class KnownUpstreams {
  readonly #known: Upstream[] = []

  group(endpoints: readonly Endpoint[]): Upstreams {
    return new Upstreams(endpoints.map((endpoint) => this.find(endpoint) ?? this.#add(endpoint)))
  }

  /** Undefined: not one of the configured. */
  find(endpoint: Endpoint): Upstream | undefined {
    return this.#known.find((one) => sameEndpoint(one.endpoint, endpoint))
  }

  #add(endpoint: Endpoint): Upstream {
    const upstream = { endpoint, family: familyOf(endpoint.address), waitsSinceMs: -1, avoidedUntilMs: 0 }
    this.#known.push(upstream)
    return upstream
  }
}

/** Servers of which any will do; the first that does well is taken. */
export class Upstreams {
  readonly #upstreams: readonly Upstream[]

  constructor(upstreams: readonly Upstream[]) {
    this.#upstreams = upstreams
  }

  /** `family` left out: any. When none does well, the one that is avoided for the shortest time. Undefined: none of the family. */
  pick(nowMs: number, family?: Family): Endpoint | undefined {
    let best: Upstream | undefined
    for (const upstream of this.#upstreams) {
      if (family !== undefined && upstream.family !== family) continue
      if (upstream.waitsSinceMs >= 0 && nowMs - upstream.waitsSinceMs > SILENT_MS) avoid(upstream, nowMs)
      if (upstream.avoidedUntilMs <= nowMs) return upstream.endpoint
      if (best === undefined || upstream.avoidedUntilMs < best.avoidedUntilMs) best = upstream
    }
    return best?.endpoint
  }
}

/** A server that is no configured one, and of which nothing is remembered. */
export function oneServer(endpoint: Endpoint): Upstreams {
  return new Upstreams([{ endpoint, family: familyOf(endpoint.address), waitsSinceMs: -1, avoidedUntilMs: 0 }])
}

/** For some seconds, after which it is tried again. */
export function avoid(upstream: Upstream, nowMs: number): void {
  upstream.avoidedUntilMs = nowMs + AVOIDED_MS
  upstream.waitsSinceMs = -1
}

export function noteAsked(upstream: Upstream, nowMs: number): void {
  if (upstream.waitsSinceMs < 0) upstream.waitsSinceMs = nowMs
}

export function noteAnswered(upstream: Upstream): void {
  upstream.waitsSinceMs = -1
  upstream.avoidedUntilMs = 0
}
