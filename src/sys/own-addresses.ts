import { networkInterfaces } from 'node:os'
import { parseAddress } from '../net/address.ts'

const REFRESH_MS = 1_000 // reading them takes a tenth of a millisecond; an address change is noticed this late

/** The addresses of this host's interfaces, read again at most once a second. */
export class OwnAddresses {
  #addresses: ReadonlySet<string> = readAddresses()
  #readAt = Number.NEGATIVE_INFINITY

  /** `now`: monotonic milliseconds. */
  has(address: string, now: number): boolean {
    if (now - this.#readAt >= REFRESH_MS) {
      this.#readAt = now
      try {
        this.#addresses = readAddresses()
      } catch {
        // reading them takes a descriptor, and there may be none (EMFILE): those of a second ago must do
      }
    }
    return this.#addresses.has(address)
  }
}

function readAddresses(): Set<string> {
  const found = new Set<string>()
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { address } of addresses ?? []) {
      const parsed = parseAddress(address.split('%')[0]!)
      if (parsed !== undefined) found.add(parsed)
    }
  }
  return found
}
