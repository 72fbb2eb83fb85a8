import type { PoolConfig } from '../config/policy-types.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { type Candidate, chooseServer, hashOf } from '../policy/balance.ts'
import type { DialReason, SourceUsed } from './record.ts'

/** A server's counters since the pool was made, and gauges of this moment. */
export interface PoolServerStats {
  readonly flows: number
  readonly flowsTotal: number
  /** Dials of flows that it did not answer, or refused. */
  readonly failures: number
  /** 1 when it gets flows; of several workers, how many give it some. */
  readonly up: number
}

const LEFT_OUT_MS = 10_000 // after a dial that failed, unless a check succeeds before
const MAX_TRIES = 3 // of one flow
const OF_SERVER: ReadonlySet<DialReason> = new Set(['dial-refused', 'dial-timeout', 'dial-unreachable'])

/** One server of a pool, and what is known of it. */
export class PoolServer implements Candidate {
  readonly endpoint: Endpoint
  readonly hash: number
  flows = 0
  flowsTotal = 0
  failures = 0
  /** What the last check said. */
  answers = true
  /** On the pool's clock. */
  leftOutUntil = 0
  mayServe = true

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint
    this.hash = hashOf(formatEndpoint(endpoint))
  }
}

/** Shares out flows among servers, those left out that do not answer. */
export class Pool {
  readonly name: string
  readonly config: PoolConfig
  readonly servers: readonly PoolServer[]
  readonly #now: () => number
  /** A server is suspected: whoever checks may do it now. */
  readonly #onSuspect: (server: PoolServer) => void
  #turn = 0

  constructor(name: string, config: PoolConfig, now: () => number, onSuspect: (server: PoolServer) => void) {
    this.name = name
    this.config = config
    this.servers = config.servers.map((endpoint) => new PoolServer(endpoint))
    this.#now = now
    this.#onSuspect = onSuspect
  }

  /** Undefined: none is up. The caller leaves the place when its flow ends. */
  enter(clientAddress: string): PoolPlace | undefined {
    const server = this.choose(clientAddress, NONE)
    return server === undefined ? undefined : new PoolPlace(this, server, clientAddress)
  }

  choose(clientAddress: string, except: readonly PoolServer[]): PoolServer | undefined {
    const now = this.#now()
    for (const server of this.servers) {
      server.mayServe = server.answers && server.leftOutUntil <= now && !except.includes(server)
    }
    const place = chooseServer(this.config.balance, this.servers, this.#turn, clientAddress)
    if (place >= 0) this.#turn = place + 1
    return this.servers[place]
  }

  /**
   * A flow's dial failed. One with a client's address says little of the server, since clients could have it left out for all: then it
   * is only checked.
   */
  noteFailure(server: PoolServer, source: SourceUsed): void {
    server.failures++
    const isForeign = source === 'client' || source === 'client-port'
    if (!isForeign) server.leftOutUntil = this.#now() + LEFT_OUT_MS
    this.#onSuspect(server)
  }

  noteCheck(server: PoolServer, answers: boolean): void {
    server.answers = answers
    if (answers) server.leftOutUntil = 0
  }

  stats(): Record<string, PoolServerStats> {
    const now = this.#now()
    return Object.fromEntries(
      this.servers.map(({ endpoint, flows, flowsTotal, failures, answers, leftOutUntil }) => [
        formatEndpoint(endpoint),
        { flows, flowsTotal, failures, up: answers && leftOutUntil <= now ? 1 : 0 },
      ]),
    )
  }
}

const NONE: readonly PoolServer[] = []

/** A flow's server. */
export class PoolPlace {
  readonly #pool: Pool
  readonly #clientAddress: string
  #server: PoolServer
  #tried: readonly PoolServer[] = NONE
  #hasLeft = false

  constructor(pool: Pool, server: PoolServer, clientAddress: string) {
    this.#pool = pool
    this.#clientAddress = clientAddress
    this.#server = server
    this.#count(1)
  }

  get endpoint(): Endpoint {
    return this.#server.endpoint
  }

  /** The dial failed: whether there is another server to try; then `endpoint` is that. */
  move(reason: DialReason, source: SourceUsed): boolean {
    if (!OF_SERVER.has(reason)) return false
    this.#pool.noteFailure(this.#server, source)
    this.#tried = [...this.#tried, this.#server]
    const next = this.#tried.length < MAX_TRIES ? this.#pool.choose(this.#clientAddress, this.#tried) : undefined
    if (next === undefined) return false
    this.#count(-1)
    this.#server = next
    this.#count(1)
    return true
  }

  leave(): void {
    if (!this.#hasLeft) this.#count(-1)
    this.#hasLeft = true
  }

  #count(by: 1 | -1): void {
    this.#server.flows += by
    if (by > 0) this.#server.flowsTotal++
  }
}
