import { randomFillSync } from 'node:crypto'

const DRAWN = 2048 // ids at once: a call of the generator costs about as much as a hundred of them
const MAX_DRAWS = 16 // of 65,536 ids only as many are taken as the table has places
const drawn = new Uint16Array(DRAWN)
let next = DRAWN

/** 16 bits that nobody can guess (RFC 5452 §9.2). */
function randomId(): number {
  if (next === DRAWN) {
    randomFillSync(drawn)
    next = 0
  }
  return drawn[next++]!
}

/** A query that went on to a server. */
export interface PendingQuery {
  /** Of questionKey(); '' for an opcode other than QUERY, whose answers are not looked into. */
  readonly key: string
  readonly clientId: number
  /** What the client can receive. */
  readonly limit: number
  readonly edns: boolean
  readonly dnssecOk: boolean
  /** Its answer may be kept for others. */
  readonly shared: boolean
  readonly deadlineAtMs: number
}

/** Queries that wait for an answer, by the id that the server sees. At its bound the oldest makes room. */
export class PendingQueries<Q extends Pick<PendingQuery, 'deadlineAtMs'> = PendingQuery> {
  readonly #max: number
  readonly #queries = new Map<number, Q>()

  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#queries.size
  }

  entries(): Iterable<[id: number, query: Q]> {
    return this.#queries
  }

  /** Returns the id under which it waits: random, and no other's; `id`: that one. */
  add(query: Q, id?: number): number {
    if (this.#queries.size >= this.#max) {
      for (const oldest of this.#queries.keys()) {
        this.#queries.delete(oldest)
        break
      }
    }
    let key = id ?? randomId()
    for (let draws = 1; id === undefined && this.#queries.has(key) && draws < MAX_DRAWS; draws++) key = randomId()
    this.#queries.delete(key)
    this.#queries.set(key, query)
    return key
  }

  get(id: number, nowMs: number): Q | undefined {
    const query = this.#queries.get(id)
    return query === undefined || query.deadlineAtMs <= nowMs ? undefined : query
  }

  delete(id: number): void {
    this.#queries.delete(id)
  }
}
