import type { Balance } from '../config/policy-types.ts'

/** A server of a pool when one is chosen. */
export interface Candidate {
  /** hashOf() of its address and port. */
  readonly hash: number
  readonly flows: number
  readonly mayServe: boolean
}

/**
 * The place of the server that gets the next flow; -1 when none may. `turn`: the place behind the one that was chosen last; among
 * equals the next from there on.
 *
 * `client-hash` is rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): each server has a
 * score for the client, and the highest wins, so that a server that goes takes only its own clients along, and they all come back with it.
 */
export function chooseServer(
  balance: Balance,
  candidates: readonly Candidate[],
  turn: number,
  clientAddress: string,
): number {
  const client = balance === 'client-hash' ? hashOf(clientAddress) : 0
  const start = balance === 'client-hash' ? 0 : turn
  let best = -1
  let bestScore = Number.NEGATIVE_INFINITY
  for (let i = 0; i < candidates.length; i++) {
    const place = (start + i) % candidates.length
    const { hash, flows, mayServe } = candidates[place]!
    if (!mayServe) continue
    if (balance === 'round-robin') return place
    const score = balance === 'least-flows' ? -flows : mix(client ^ hash)
    if (score <= bestScore) continue
    best = place
    bestScore = score
  }
  return best
}

/** 32 bits of a text: FNV-1a (Fowler, Noll, Vo), mixed. */
export function hashOf(text: string): number {
  let hash = 0x811c_9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193)
  return mix(hash)
}

/** Each bit of the argument changes half of the result's: the finalizer of MurmurHash3 (Appleby). */
function mix(value: number): number {
  let mixed = value ^ (value >>> 16)
  mixed = Math.imul(mixed, 0x85eb_ca6b)
  mixed ^= mixed >>> 13
  mixed = Math.imul(mixed, 0xc2b2_ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
