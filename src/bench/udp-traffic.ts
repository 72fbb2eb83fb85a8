import { bulkPattern } from './pattern.ts'

/** Session and sequence number, 32 bits each, before the pattern's bytes. */
export const HEADER_BYTES = 8

const OFFSETS = 65_521 // a prime
const LARGEST_BYTES = 65_536

/** What datagrams carry after their header: bytes of a fixed pattern, from another place in each. */
export const PATTERN = bulkPattern().subarray(0, OFFSETS + LARGEST_BYTES)

/** Where in the pattern the bytes of a datagram begin. */
export function patternAt(session: number, sequence: number): number {
  return (session * 8_191 + sequence * 61) % OFFSETS
}

/** A datagram that came before its time, or whose bytes are wrong: then there are no figures. */
export class WrongDatagram extends Error {}

/**
 * The datagrams of some sessions that are on their way. Within a session they must come in the order in which they were sent;
 * those that never come are found by the gaps, or given up.
 */
export class Flights {
  readonly #sent: Uint32Array
  /** The sequence number after the last that came. */
  readonly #next: Uint32Array
  /** What was sent before this is given up: it may still come, but nobody waits for it. */
  readonly #awaited: Uint32Array
  sent = 0
  arrived = 0
  /** On their way, as far as anybody knows. */
  inFlight = 0

  constructor(sessions: number) {
    this.#sent = new Uint32Array(sessions)
    this.#next = new Uint32Array(sessions)
    this.#awaited = new Uint32Array(sessions)
  }

  /** The sequence number of the next datagram of a session. */
  nextOf(session: number): number {
    return this.#sent[session]!
  }

  depart(session: number, datagrams: number): void {
    this.#sent[session]! += datagrams
    this.sent += datagrams
    this.inFlight += datagrams
  }

  /** @throws WrongDatagram when it was overtaken by another of its session, came twice, or was never sent. */
  arrive(session: number, sequence: number): void {
    const sent = this.#sent[session]
    const next = this.#next[session]!
    if (sent === undefined || sequence >= sent) {
      throw new WrongDatagram(`datagram ${sequence} of session ${session} was never sent`)
    }
    if (sequence < next) {
      throw new WrongDatagram(`datagram ${sequence} of session ${session} came after ${next - 1}`)
    }
    this.#next[session] = sequence + 1
    this.arrived++
    const awaited = this.#awaited[session]!
    if (sequence < awaited) return
    this.#awaited[session] = sequence + 1
    this.inFlight -= sequence + 1 - awaited
  }

  /** Datagrams of a session that are awaited. */
  inFlightOf(session: number): number {
    return this.#sent[session]! - this.#awaited[session]!
  }

  giveUp(session: number): void {
    this.inFlight -= this.inFlightOf(session)
    this.#awaited[session] = this.#sent[session]!
  }
}
