import { randomInt } from 'node:crypto'
import { familyOf } from '../../net/address.ts'
import { networkOf } from '../../net/prefix.ts'

const PER_SECOND = 100 // about 120 kB/s; who means it has the rest by TCP
const AT_ONCE = 200
const NETWORK_BITS = { 4: 24, 6: 56 } as const // as BIND's rate-limit has them: what one customer has
const PLACES = 4096

/**
 * How many large answers of our own the clients of a network may have by UDP: a forged source could turn a small question into a large
 * answer for somebody else. Networks share a place by chance, which costs them a question by TCP. Times are monotonic milliseconds.
 */
export class LargeAnswers {
  readonly #left = new Float64Array(PLACES).fill(AT_ONCE)
  readonly #countedAtMs = new Float64Array(PLACES)
  readonly #seed = randomInt(2 ** 32) // nobody can know with whom a network shares

  /** Counts one more for the client's network; false: it would be too many. */
  mayGo(clientAddress: string, nowMs: number): boolean {
    const place = this.#placeOf(networkOf(clientAddress, NETWORK_BITS[familyOf(clientAddress)]))
    const more = ((nowMs - this.#countedAtMs[place]!) * PER_SECOND) / 1000
    const left = Math.min(AT_ONCE, this.#left[place]! + more)
    this.#countedAtMs[place] = nowMs
    this.#left[place] = left < 1 ? left : left - 1
    return left >= 1
  }

  /** FNV-1a, from a secret on. */
  #placeOf(network: string): number {
    let hash = this.#seed
    for (let i = 0; i < network.length; i++) hash = Math.imul(hash ^ network.charCodeAt(i), 16_777_619)
    return (hash ^ (hash >>> 16)) & (PLACES - 1)
  }
}
