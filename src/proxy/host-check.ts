import type { Decision } from '../config/policy-types.ts'
import type { ListenerConfig } from '../config/types.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import type { Finding } from '../policy/facts.ts'
import type { Policy } from '../policy/policy.ts'
import { Seldom } from '../policy/seldom.ts'
import { HostAddresses } from './host-addresses.ts'
import { nameLookup } from './name-lookup.ts'

const TELL_EVERY_MS = 1_000

/**
 * What was found about the host that a flow names, and the address that its client dialled. `learnt`: the client got that address for it from
 * Limpid's DNS; `resolved`: the name has it; `literal`: the host is that very address; `mismatch`: none of these; `unresolved`: no name
 * server says so.
 */
export type HostOutcome = 'learnt' | 'resolved' | 'literal' | 'mismatch' | 'unresolved'

export type HostChecks = Readonly<Record<HostOutcome, number>>

export interface AskedHost {
  readonly client: Endpoint
  readonly originalDst: Endpoint
  readonly finding: Finding
  readonly learntNames: readonly string[]
}

/** Whether a decision brings a flow to where its client dialled, because of what it says: else its address decides nothing. */
export function leadsToOriginalDst(decision: Decision, { to }: Pick<ListenerConfig, 'to'>): boolean {
  if (decision.kind === 'reject') return false
  if (decision.kind === 'bypass') return to === undefined
  if (decision.to !== undefined || to !== undefined) return false
  // the proxy gets the name, and finds the address by itself
  return decision.kind !== 'via' || decision.via.kind === 'proxy-protocol' || !decision.via.names
}

/** Whether it says anything that can be compared. */
export function namesHost({ host, address }: Finding): boolean {
  return host !== undefined || address !== undefined
}

/** Whether a flow must not go on for what was found about its host. */
export function isRefusedHost({ hostCheck }: Pick<Policy, 'hostCheck'>, outcome: HostOutcome | undefined): boolean {
  return hostCheck === 'enforce' && (outcome === 'mismatch' || outcome === 'unresolved')
}

/** Compares what clients say with where they go: SNI and Host are their word alone (CVE-2009-0801). */
export class HostCheck {
  readonly #addresses: HostAddresses
  readonly #trustsLearnt: boolean
  readonly #note: (line: string) => void
  readonly #counts = { learnt: 0, resolved: 0, literal: 0, mismatch: 0, unresolved: 0 }
  readonly #differing = new Seldom(TELL_EVERY_MS)

  constructor(listeners: readonly ListenerConfig[], note: (line: string) => void) {
    const dns = listeners.filter((listener) => listener.dns !== undefined)
    const upstreams = dns.find((one) => one.dns!.upstreams.length > 0)?.dns?.upstreams ?? []
    this.#addresses = new HostAddresses(nameLookup(upstreams), () => performance.now())
    // answers of a server that the client has chosen are its own word again
    this.#trustsLearnt = dns.every((one) => one.to !== undefined || one.dns!.upstreams.length > 0)
    this.#note = note
  }

  get counts(): HostChecks {
    return { ...this.#counts }
  }

  /** `done` is told once, within this call or later; not any more after the returned function was called. `finding` names a host. */
  ask(asked: AskedHost, done: (outcome: HostOutcome) => void): () => void {
    const { finding, originalDst, learntNames } = asked
    const tell = (outcome: HostOutcome): void => {
      this.#counts[outcome]++
      if (outcome === 'mismatch' || outcome === 'unresolved') this.#tell(asked, outcome)
      done(outcome)
    }
    const { host, address } = finding
    if (host === undefined) tell(address === originalDst.address ? 'literal' : 'mismatch')
    else if (this.#trustsLearnt && learntNames.includes(host)) tell('learnt')
    else return this.#addresses.ask(host, originalDst.address, tell)
    return () => {}
  }

  /** A host is safe text: see canonicalHost(). */
  #tell({ client, originalDst, finding }: AskedHost, outcome: 'mismatch' | 'unresolved'): void {
    const times = this.#differing.happened(performance.now())
    if (times === undefined) return
    const others = times === 1 ? '' : ` (and ${times - 1} more since it was last told)`
    const why = outcome === 'mismatch' ? 'is not an address of it' : 'cannot be found out to be an address of it'
    const { host = finding.address } = finding
    this.#note(`${client.address} asks for ${host} at ${formatEndpoint(originalDst)}, which ${why}${others}`)
  }

  close(): void {
    this.#addresses.close()
  }
}
