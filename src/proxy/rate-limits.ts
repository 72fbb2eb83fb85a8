import type { FlowRate, RateLimit } from '../config/policy-types.ts'
import { addressBytes, familyOf } from '../net/address.ts'
import { Allowance } from '../relay/allowance.ts'

/** Clients that are remembered: 15 MB. Those whose last flow is longest ago are forgotten, and begin with a burst again. */
const MAX_CLIENTS = 65_536

/** How many new flows the rules of a policy let through. Knows no clock of its own. */
export class RateLimits {
  readonly #ofRules = new Map<string, Allowance>()
  /** In the order of use. */
  readonly #ofClients = new Map<string, Allowance>()

  /** Whether a flow may go on, which is counted then. `rule`: its name; undefined: none matched. `now`: monotonic milliseconds. */
  admits(rule: string | undefined, limit: RateLimit, clientAddress: string, now: number): boolean {
    const { newFlows, per } = limit
    if (newFlows === undefined) return true
    const key = rateKey(rule, per, clientAddress)
    const allowance =
      per === 'rule' ? (this.#ofRules.get(key) ?? begin(this.#ofRules, key, newFlows)) : this.#ofClient(key, newFlows)
    if (allowance.waitMs(now) > 0) return false
    allowance.take(now)
    return true
  }

  /** Another policy has other limits. */
  clear(): void {
    this.#ofRules.clear()
    this.#ofClients.clear()
  }

  #ofClient(key: string, limit: FlowRate): Allowance {
    const clients = this.#ofClients
    const known = clients.get(key)
    if (known !== undefined) {
      clients.delete(key)
      clients.set(key, known)
      return known
    }
    if (clients.size >= MAX_CLIENTS) clients.delete(clients.keys().next().value!)
    return begin(clients, key, limit)
  }
}

function begin(allowances: Map<string, Allowance>, key: string, { burst, intervalMs }: FlowRate): Allowance {
  const allowance = new Allowance(burst, intervalMs)
  allowances.set(key, allowance)
  return allowance
}

/** Who shares a limit. `rule`: its name; undefined: none matched. */
export function rateKey(rule: string | undefined, per: RateLimit['per'], clientAddress: string): string {
  return per === 'rule' ? (rule ?? '') : `${rule ?? ''} ${clientOf(clientAddress)}`
}

/** A host with IPv6 has as many addresses as it likes in its /64 (RFC 8981). */
function clientOf(address: string): string {
  if (familyOf(address) === 4) return address
  return Buffer.from(addressBytes(address).subarray(0, 8)).toString('hex')
}
