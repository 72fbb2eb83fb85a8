import type { ForwardConfig } from '../config/types.ts'
import { BACKENDS } from './backend.ts'
import { commentText } from './nft-text.ts'
import type { Plan } from './plan.ts'

/** What the kernel has passed on for one forward since the rules were loaded. */
export interface ForwardAccount {
  readonly name: string
  /** New flows: conntrack asks the rule for each flow's first packet alone. */
  readonly flows: number
  /** Bytes of IP packets from clients and to them; undefined where the backend does not count them. */
  readonly bytesUp: number | undefined
  readonly bytesDown: number | undefined
}

/** Reads the counters of a plan's forwards; none when the rules are gone. */
export async function readForwardAccounts(plan: Plan): Promise<ForwardAccount[]> {
  if (plan.forwards.length === 0) return []
  const backend = BACKENDS[plan.backend]
  const label = backend.label(plan.rules, 'main')
  const found = (await backend.listOurs()).find((rules) => rules.label === label)
  return found === undefined ? [] : parseForwardAccounts(await backend.listWithCounters(found), plan.forwards)
}

/** From what nft (`counter packets 1 bytes 60 … comment "forward web up"`) or iptables-save -c (`[1:60] -A …`) prints. */
export function parseForwardAccounts(listing: string, forwards: readonly ForwardConfig[]): ForwardAccount[] {
  const sums = new Map<string, { packets: number; bytes: number }>()
  for (const line of listing.split('\n')) {
    const comment = /comment "(forward [^"]*)"/.exec(line)?.[1]
    const counter = /counter packets (\d+) bytes (\d+)/.exec(line) ?? /^\[(\d+):(\d+)\]/.exec(line)
    if (comment === undefined || counter === null || /masquerade|MASQUERADE/.test(line)) continue
    const sum = sums.get(comment) ?? { packets: 0, bytes: 0 }
    sums.set(comment, { packets: sum.packets + Number(counter[1]), bytes: sum.bytes + Number(counter[2]) })
  }
  return forwards.map(({ name }) => {
    const key = `forward ${commentText(name)}`
    return {
      name,
      flows: sums.get(key)?.packets ?? 0,
      bytesUp: sums.get(`${key} up`)?.bytes,
      bytesDown: sums.get(`${key} down`)?.bytes,
    }
  })
}
